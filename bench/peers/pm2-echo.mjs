/**
 * Echo on node:net as pm2's documentation has a graceful application: on SIGINT it stops listening and ends when its
 * connections have. pm2 runs it in cluster mode, on the port given in the environment.
 */
import { createServer } from "node:net";

const server = createServer({ noDelay: true }, (socket) => {
  socket.on("error", () => socket.destroy());
  socket.pipe(socket);
});
server.listen({ port: Number(process.env.ECHO_PORT), host: "127.0.0.1", backlog: 65_535 });
process.on("SIGINT", () => server.close(() => process.exit(0)));
