// Issuers of identities for the tests (OpenID Connect, oidc-provider): one for each argument, a JSON object {name, alg, secret}, on a free port of
// the loopback. Prints {"issuers": [URL…]}, takes the redirect URI as a line on standard input, and then answers; ends with its standard input.
// Whoever logs in there types an account and presses one of the buttons, which say how many factors were shown.
import { generateKeyPairSync, randomUUID, webcrypto } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

// Node 18 has it under another name.
globalThis.crypto ??= webcrypto;
const { default: Provider } = await import("oidc-provider");

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const form = `<!doctype html><html lang="en"><title>issuer</title><form method="post"><input name="account" id="account">
<button name="how" value="pwd" id="one">one factor</button><button name="how" value="pwd otp" id="two">two factors</button>
<button name="how" value="" id="no">no</button></form>`;

function signingKey(alg) {
  const { privateKey } = alg === "ES256" ? generateKeyPairSync("ec", { namedCurve: "P-256" }) : generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), alg, use: "sig" };
}

function provider(issuer, { alg, secret }, redirect) {
  const client = {
    client_id: "trocar",
    redirect_uris: [redirect],
    response_types: ["code"],
    grant_types: ["authorization_code"],
    id_token_signed_response_alg: alg,
    ...(secret ? { client_secret: secret } : { token_endpoint_auth_method: "none" }),
  };
  return new Provider(issuer, {
    clients: [client],
    jwks: { keys: [signingKey(alg)] },
    cookies: { keys: [randomUUID()] },
    // Where issuers give the name away at once, as most that people meet do.
    conformIdTokenClaims: false,
    claims: { openid: ["sub", "acr", "amr", "auth_time"], profile: ["name"] },
    features: { devInteractions: { enabled: false } },
    findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId, name: `Dr ${accountId}` }) }),
    interactions: { url: (_, { uid }) => `/interaction/${uid}` },
    // Nobody is asked whether this node may know who they are.
    async loadExistingGrant({ oidc }) {
      const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
      grant.addOIDCScope("openid profile");
      await grant.save();
      return grant;
    },
    pkce: { required: () => true },
  });
}

async function interact(at, request, answer) {
  if (request.method !== "POST") return answer.setHeader("content-type", "text/html").end(form);
  let body = "";
  for await (const chunk of request) body += chunk;
  const fields = new URLSearchParams(body);
  const amr = (fields.get("how") ?? "").split(" ").filter((method) => method !== "");
  const result = amr.length === 0 ? { error: "access_denied" } : { login: { accountId: fields.get("account"), amr } };
  await at.interactionFinished(request, answer, result, { mergeWithLastSubmission: false });
}

const options = process.argv.slice(2).map((text) => JSON.parse(text));
const servers = await Promise.all(options.map(async (option) => {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, option, issuer: `http://127.0.0.1:${server.address().port}` };
}));
say({ issuers: servers.map(({ issuer }) => issuer) });

for await (const line of createInterface({ input: process.stdin })) {
  for (const { server, option, issuer } of servers) {
    const at = provider(issuer, option, line.trim());
    const rest = at.callback();
    server.on("request", (request, answer) => {
      if (!request.url.startsWith("/interaction/")) return rest(request, answer);
      interact(at, request, answer).catch((error) => answer.writeHead(500).end(String(error)));
    });
  }
  say({ ready: true });
}
process.exit(0);
