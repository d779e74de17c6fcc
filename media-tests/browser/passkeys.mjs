// Commands of the driver for passkeys: authenticators in software, which the browser itself has for tests (WebAuthn section 11, by CDP).

/** Answers of the relay that ask the authenticator for less than they should. */
const ASKS = "**/v1/login/passkey/begin";

export function passkeyCommands(pages) {
  const authenticators = new Map();

  const send = (page, method, more = {}) => {
    const { session, id } = authenticators.get(page);
    return session.send(`WebAuthn.${method}`, { authenticatorId: id, ...more });
  };

  return {
    // Gives the page an authenticator that presses its own button. `hasPin`: whether it can verify somebody; `verifies`: whether it does.
    async authenticator({ page, hasPin = true, verifies = true }) {
      const target = pages.get(page);
      const session = await target.context().newCDPSession(target);
      await session.send("WebAuthn.enable");
      const options = {
        protocol: "ctap2",
        // One that cannot verify is a key that somebody plugs in: a computer without a PIN is none of the browser's authenticators.
        transport: hasPin ? "internal" : "usb",
        hasResidentKey: true,
        hasUserVerification: hasPin,
        isUserVerified: verifies,
        automaticPresenceSimulation: true,
      };
      const { authenticatorId } = await session.send("WebAuthn.addVirtualAuthenticator", { options });
      authenticators.set(page, { session, id: authenticatorId });
      return true;
    },
    async verifies({ page, verifies }) {
      await send(page, "setUserVerified", { isUserVerified: verifies });
      return true;
    },
    // All that the authenticator keeps, private keys too.
    async credentials({ page }) {
      return (await send(page, "getCredentials")).credentials;
    },
    // In place of all that it has.
    async credential({ page, credential }) {
      await send(page, "clearCredentials");
      await send(page, "addCredential", { credential });
      return true;
    },
    // As a page would do that somebody has changed: the authenticator is not told to verify anybody.
    async unverified({ page }) {
      await pages.get(page).route(ASKS, async (route) => {
        const response = await route.fetch();
        const json = await response.json();
        json.options.userVerification = "discouraged";
        await route.fulfill({ response, json });
      });
      return true;
    },
    async asUsual({ page }) {
      await pages.get(page).unroute(ASKS);
      return true;
    },
  };
}
