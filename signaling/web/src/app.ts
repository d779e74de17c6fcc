// The page: from a link to a session, and back to the join screen when it ends.

import { join, Refused } from "./api.ts";
import { setData } from "./dom.ts";
import { joinScreen } from "./join.ts";
import { fromFragment } from "./link-invitation.ts";
import { keepTabInvitation, rememberedName, rememberName, tabInvitation } from "./memory.ts";
import { Session } from "./session.ts";
import { t } from "./strings.ts";
import type { Invitation } from "./token.ts";

const root = document.getElementById("app") ?? document.body;

function showJoin(invitation: string, name: string, notice: string, fault: string): void {
  setData(document.body, "connection", "joining");
  document.title = t.product;
  const submit = ({ invitation: secret, name: shown }: { invitation: string; name: string }) =>
    enter({ secret, name: shown });
  root.replaceChildren(joinScreen({ invitation, name, notice, fault, submit }));
}

/** Joins and shows the session; resolves to what went wrong, or null. */
async function enter(invitation: Invitation): Promise<string | null> {
  try {
    const grant = await join(invitation.secret, invitation.name);
    rememberName(invitation.name || grant.name);
    keepTabInvitation(invitation.secret, true);
    const session = new Session(invitation, grant, (fault) => leave(invitation, fault));
    root.replaceChildren(session.view.element);
    session.start();
    return null;
  } catch (error) {
    return error instanceof Refused ? error.detail : t.join.unreachable;
  }
}

function leave(invitation: Invitation, fault: string): void {
  keepTabInvitation(invitation.secret, false);
  showJoin(invitation.secret, invitation.name || rememberedName(), t.join.left, fault);
}

async function main(): Promise<void> {
  const link = fromFragment(location.hash);
  const tab = tabInvitation();
  const secret = link.invitation || tab.secret;
  const name = link.name || rememberedName();
  const direct = link.invitation === "" ? tab.joined : link.join;
  if (link.invitation !== "") {
    // The secret leaves the address bar, which others in the room and every screenshot can see.
    keepTabInvitation(secret, direct);
    history.replaceState(null, "", location.pathname);
  }
  if (secret === "" || !direct) return showJoin(secret, name, "", "");
  setData(document.body, "connection", "joining");
  const fault = await enter({ secret, name });
  if (fault !== null) showJoin(secret, name, "", fault);
}

// A second link opened in the same tab changes the fragment only: begin anew with it.
addEventListener("hashchange", () => location.hash !== "" && location.reload());
// A page that comes back from the browser's cache has closed its legs: begin anew.
addEventListener("pageshow", (event) => event.persisted && location.reload());
void main();
