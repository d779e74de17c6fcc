// What the page remembers: choices on this machine, and the invitation in this tab (so that a reload comes back).

import { NO_CHOICE, type DeviceChoice } from "./devices.ts";
import { isLayout, type Layout } from "./layout.ts";

const INVITATION = "trocar.invitation";
const IDENTITY = "trocar.identity";
const LOGIN = "trocar.login";

const read = (name: string): string => load(() => localStorage, `trocar.${name}`);
const keep = (name: string, value: string): void => store(() => localStorage, `trocar.${name}`, value);

export const rememberedName = (): string => read("name");
export const rememberName = (name: string): void => keep("name", name);
export const rememberedOrganisation = (): string => read("organisation");
export const rememberOrganisation = (name: string): void => keep("organisation", name);
/** Which side panel is open; empty for none. */
export const rememberedPanel = (): string => read("panel");
export const rememberPanel = (panel: string): void => keep("panel", panel);
export const rememberedLanguage = (): string => read("language");
export const rememberLanguage = (language: string): void => keep("language", language);
export const rememberLayout = (layout: Layout): void => keep("layout", layout);

export function rememberedLayout(): Layout {
  const stored = read("layout");
  return isLayout(stored) ? stored : "large";
}

/** What a person begins the session with. */
export interface StartChoice {
  devices: DeviceChoice;
  camera: boolean;
  microphone: boolean;
  /** Devices that were seen to work just now: only these are started. */
  checked: { camera: boolean; microphone: boolean };
}

export function rememberedStart(): StartChoice {
  const devices = { camera: read("device.camera"), microphone: read("device.microphone"), speaker: read("device.speaker") };
  return {
    devices: { ...NO_CHOICE, ...devices },
    // A camera never goes on unless somebody wanted it to; a microphone is muted anyway.
    camera: read("start.camera") === "yes",
    microphone: read("start.microphone") !== "no",
    checked: { camera: false, microphone: false },
  };
}

export function rememberStart(start: StartChoice): void {
  for (const [kind, id] of Object.entries(start.devices)) keep(`device.${kind}`, id as string);
  keep("start.camera", start.camera ? "yes" : "no");
  keep("start.microphone", start.microphone ? "yes" : "no");
}

export interface TabInvitation {
  secret: string;
  /** The tab was in the session: a reload goes back without asking. */
  joined: boolean;
}

export function tabInvitation(): TabInvitation {
  const stored = load(() => sessionStorage, INVITATION);
  return { secret: stored.replace(/^[+-]/, ""), joined: stored.startsWith("+") };
}

export function keepTabInvitation(secret: string, joined: boolean): void {
  store(() => sessionStorage, INVITATION, (joined ? "+" : "-") + secret);
}

/** Who this tab has logged in as; gone with the tab. */
export interface TabIdentity {
  token: string;
  name: string;
}

export function tabIdentity(): TabIdentity {
  // A token has no spaces.
  const stored = load(() => sessionStorage, IDENTITY);
  const space = stored.indexOf(" ");
  return space < 0 ? { token: "", name: "" } : { token: stored.slice(0, space), name: stored.slice(space + 1) };
}

export function keepTabIdentity(identity: TabIdentity): void {
  store(() => sessionStorage, IDENTITY, `${identity.token} ${identity.name}`);
}

export function forgetTabIdentity(): void {
  store(() => sessionStorage, IDENTITY, "");
}

/** A login that this tab began at an issuer. */
export interface TabLogin {
  /** What finishes it. */
  value: string;
  isStepUp: boolean;
  ways: string[];
  /** One may come in without it, in an emergency: such as that the issuer sends nobody back. */
  breakGlass: boolean;
}

export function keepTabLogin(login: TabLogin): void {
  store(() => sessionStorage, LOGIN, JSON.stringify(login));
}

/** The login that this tab began, once. */
export function takeTabLogin(): TabLogin | null {
  const stored = load(() => sessionStorage, LOGIN);
  store(() => sessionStorage, LOGIN, "");
  return stored === "" ? null : (JSON.parse(stored) as TabLogin);
}

// Storage may be switched off by policy: then the page forgets, and works.
function load(where: () => Storage, key: string): string {
  try {
    return where().getItem(key) ?? "";
  } catch {
    return "";
  }
}

function store(where: () => Storage, key: string, value: string): void {
  try {
    where().setItem(key, value);
  } catch {
    return;
  }
}
