import { WebSocket } from "ws";
import type { Environment } from "../src/environment.ts";

/** WebSockets where Node has none of its own yet. */
export const openSocket: Environment["openSocket"] = (url, protocols, handlers) => {
  const socket = new WebSocket(url, [...protocols]);
  socket.onmessage = (event) => handlers.message(event.data);
  socket.onclose = (event) => handlers.closed(event.code);
  socket.onerror = () => {}; // A close follows.
  return {
    send(text) {
      if (socket.readyState === WebSocket.OPEN) socket.send(text);
    },
    close() {
      socket.onmessage = null;
      socket.onclose = null;
      socket.close();
    },
  };
};
