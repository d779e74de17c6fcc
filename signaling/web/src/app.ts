// The page: from a link to a session, and back to the lobby when it ends.

import { isLoginNeeded, join, logIn, logOut, Refused } from "./api.ts";
import { setData } from "./dom.ts";
import { beginAt, finishLogin, type Returned, returned } from "./issuer-login.ts";
import { startLanguage } from "./language-button.ts";
import { fromFragment, maySend, passkeyLink } from "./link-invitation.ts";
import { Lobby, type LobbyFault } from "./lobby.ts";
import type { LoginAnswer } from "./login-fields.ts";
import * as memory from "./memory.ts";
import { logInByPasskey, NoPasskey } from "./passkeys.ts";
import { RegisterPasskey } from "./register-passkey.ts";
import { Session } from "./session.ts";
import { t, type TextKey } from "./strings.ts";
import type { Invitation } from "./token.ts";
import type { BreakGlass } from "./types.ts";

const root = document.getElementById("app") ?? document.body;
let role = "";

const NO_FAULT: LobbyFault = { text: "", ways: [], isStepUp: false, breakGlass: false };

function showLobby(invitation: Invitation, notice: TextKey | null, fault: LobbyFault): void {
  setData(document.body, "connection", "joining");
  document.title = t.app.product;
  const start = memory.rememberedStart();
  const lobby = new Lobby({
    invitation: invitation.secret,
    name: invitation.name,
    organisation: invitation.organisation,
    maySend: maySend(role),
    start,
    notice,
    fault,
    submit: ({ invitation: secret, name, organisation, login, emergency }) => {
      memory.rememberStart(start);
      return enter({ secret, name, organisation }, start, login, emergency);
    },
    logOut,
    logInByPasskey: async () => {
      try {
        await logInByPasskey();
        return null;
      } catch (error) {
        if (error instanceof NoPasskey) return error.message;
        return error instanceof Refused ? error.words() : t.join.unreachable;
      }
    },
    logInAt: async (issuer, { invitation: secret, organisation, isStepUp, ways, breakGlass }) => {
      memory.rememberStart(start);
      memory.rememberOrganisation(organisation);
      memory.keepTabInvitation(secret, false);
      try {
        location.assign(await beginAt(issuer, isStepUp, ways, breakGlass));
        return null;
      } catch (error) {
        return { ...NO_FAULT, text: error instanceof Refused ? error.words() : t.join.unreachable };
      }
    },
  });
  root.replaceChildren(lobby.element);
}

/** Joins and shows the session; resolves to what went wrong, or null. */
async function enter(
  asked: Invitation,
  start: memory.StartChoice,
  login: LoginAnswer | null,
  emergency: BreakGlass | null = null,
): Promise<LobbyFault | null> {
  let wasKnown = false;
  try {
    if (login !== null) await logIn(login);
    wasKnown = memory.tabIdentity().token !== "";
    const grant = await join(asked.secret, asked.name, asked.organisation, emergency);
    const invitation = { ...asked, name: asked.name || grant.name };
    memory.rememberName(invitation.name);
    memory.rememberOrganisation(invitation.organisation);
    memory.keepTabInvitation(invitation.secret, true);
    const session = new Session(invitation, grant, start, (fault) => leave(invitation, fault));
    root.replaceChildren(session.view.element);
    session.start();
    return null;
  } catch (error) {
    if (!(error instanceof Refused)) return { ...NO_FAULT, text: t.join.unreachable };
    // That a login is asked for is no fault; that the one there is does not do is to be told.
    const isNew = isLoginNeeded(error) && !wasKnown;
    return { text: isNew ? "" : error.words(), ways: error.ways, isStepUp: wasKnown, breakGlass: error.breakGlass };
  }
}

/** Back from an issuer: on into the session that was left for it. */
async function comeBack(back: Returned): Promise<void> {
  const login = memory.takeTabLogin();
  const organisation = memory.rememberedOrganisation();
  const invitation = { secret: memory.tabInvitation().secret, name: memory.rememberedName(), organisation };
  if (login === null) return showLobby(invitation, null, { ...NO_FAULT, text: t.join.loginElsewhere });
  setData(document.body, "connection", "joining");
  try {
    await finishLogin(back, login.value);
  } catch (error) {
    const text = error instanceof Refused ? error.words() : t.join.unreachable;
    return showLobby(invitation, null, { text, ways: login.ways, isStepUp: login.isStepUp, breakGlass: login.breakGlass });
  }
  if (invitation.secret === "") return showLobby(invitation, null, NO_FAULT);
  // Whoever has logged in is shown by the name of the account.
  const fault = await enter({ ...invitation, name: "" }, memory.rememberedStart(), null);
  if (fault !== null) showLobby(invitation, null, fault);
}

function leave(invitation: Invitation, fault: string): void {
  memory.keepTabInvitation(invitation.secret, false);
  showLobby({ ...invitation, name: invitation.name || memory.rememberedName() }, "join.left", { ...NO_FAULT, text: fault });
}

async function main(): Promise<void> {
  startLanguage();
  const back = returned(location.pathname, location.search);
  if (back !== null) {
    // What the issuer sent leaves the address bar and the history; it is good for one answer anyway.
    history.replaceState(null, "", "/");
    return comeBack(back);
  }
  const passkey = passkeyLink(location.hash);
  if (passkey !== "") {
    // Good once, and nobody in the room needs to see it.
    history.replaceState(null, "", location.pathname + location.search);
    document.title = t.app.product;
    root.replaceChildren(new RegisterPasskey(passkey).element);
    return;
  }
  const link = fromFragment(location.hash);
  const tab = memory.tabInvitation();
  role = link.role;
  const invitation = {
    secret: link.invitation || tab.secret,
    name: link.name || memory.rememberedName(),
    organisation: memory.rememberedOrganisation(),
  };
  const direct = link.invitation === "" ? tab.joined : link.join;
  if (link.invitation !== "") {
    // The secret leaves the address bar, which others in the room and every screenshot can see.
    memory.keepTabInvitation(invitation.secret, direct);
    history.replaceState(null, "", location.pathname + location.search);
  }
  if (invitation.secret === "" || !direct) return showLobby(invitation, null, NO_FAULT);
  setData(document.body, "connection", "joining");
  const fault = await enter(invitation, memory.rememberedStart(), null);
  if (fault !== null) showLobby(invitation, null, fault);
}

// A second link opened in the same tab changes the fragment only: begin anew with it.
addEventListener("hashchange", () => location.hash !== "" && location.reload());
// A page that comes back from the browser's cache has closed its legs: begin anew.
addEventListener("pageshow", (event) => event.persisted && location.reload());
void main();
