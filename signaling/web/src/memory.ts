// What the page remembers: the name and the panel on this machine, the invitation in this tab (so that a reload comes back).

const NAME = "trocar.name";
const PANEL = "trocar.panel";
const INVITATION = "trocar.invitation";

export const rememberedName = (): string => read(() => localStorage, NAME);
export const rememberName = (name: string): void => write(() => localStorage, NAME, name);
export const rememberedPanel = (): boolean => read(() => localStorage, PANEL) === "shown";
export const rememberPanel = (shown: boolean): void => write(() => localStorage, PANEL, shown ? "shown" : "hidden");

export interface TabInvitation {
  secret: string;
  /** The tab was in the session: a reload goes back without asking. */
  joined: boolean;
}

export function tabInvitation(): TabInvitation {
  const stored = read(() => sessionStorage, INVITATION);
  return { secret: stored.replace(/^[+-]/, ""), joined: stored.startsWith("+") };
}

export function keepTabInvitation(secret: string, joined: boolean): void {
  write(() => sessionStorage, INVITATION, (joined ? "+" : "-") + secret);
}

// Storage may be switched off by policy: then the page forgets, and works.
function read(store: () => Storage, key: string): string {
  try {
    return store().getItem(key) ?? "";
  } catch {
    return "";
  }
}

function write(store: () => Storage, key: string, value: string): void {
  try {
    store().setItem(key, value);
  } catch {
    return;
  }
}
