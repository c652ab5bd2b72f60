/**
 * The front service: asks three others for each request, all under the request's own time, and answers with what it
 * has got when that is nearly up. First the user, then the user's orders and offers side by side.
 */
import { defineClient, defineRpcService } from "headrace";

/** Of the request's time, for putting the answer together and sending it. */
const MARGIN_MS = 25;

/** One client for each back service; USERS=127.0.0.1:7001 says where it is. */
const clientOf = (name) => defineClient({ name, rpc: true, targets: [process.env[name.toUpperCase()]] });

export default defineRpcService({
  name: "front",
  env: () => ({ users: clientOf("users"), orders: clientOf("orders"), offers: clientOf("offers") }),
  closeEnv: (clients) => Promise.all(Object.values(clients).map((client) => client.close())),

  async onRequest(payload, context) {
    const { users, orders, offers } = context.env;
    // Whatever fails is missing in the answer; `context.call` never takes longer than the request has.
    const ask = async (client) => {
      const atMostMs = context.remainingMs() - MARGIN_MS;
      try {
        return String(await context.call(client, payload, { atMostMs }));
      } catch (error) {
        return `missing (${error.code})`;
      }
    };
    const user = await ask(users);
    const [ordered, offered] = await Promise.all([ask(orders), ask(offers)]);
    return JSON.stringify({ user, orders: ordered, offers: offered });
  },
});
