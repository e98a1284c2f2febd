import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const server = process.env["LASTCALL_URL"] ?? "http://127.0.0.1:8000";

/** The page is served under /torncat/ by the Python server; `npm run dev` asks that server for everything else. */
export default defineConfig({
  base: "/torncat/",
  plugins: [react(), tailwindcss()],
  build: {
    outDir: "../src/torncat/web",
    emptyOutDir: true,
    target: "es2022",
    reportCompressedSize: false,
  },
  server: {
    proxy: {
      "^/(events|state|rpc|batch|channels|tickets)": { target: server, ws: true },
      "/torncat/demo": { target: server },
    },
  },
});
