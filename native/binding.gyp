{
  "targets": [
    {
      "target_name": "headrace",
      "sources": [
        "addon.c",
        "addon_bell.c",
        "addon_channel.c",
        "addon_datagram.c",
        "addon_engine.c",
        "addon_os.c",
        "address.c",
        "admission.c",
        "cidr.c",
        "conn.c",
        "datagram.c",
        "engine.c",
        "fds.c",
        "layer.c",
        "listener.c",
        "siphash.c",
        "socket.c",
        "source.c",
        "udp.c",
        "unix.c"
      ],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE"],
      "cflags": ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"]
    }
  ]
}
