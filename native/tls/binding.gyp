{
  "targets": [
    {
      "target_name": "headrace_tls",
      "sources": ["addon.c", "connection.c", "context.c", "selection.c", "tickets.c", "wire.c"],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE", "OPENSSL_API_COMPAT=30000", "OPENSSL_NO_DEPRECATED"],
      "cflags": ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"]
    }
  ]
}
