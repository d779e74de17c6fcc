// The invitation that a link carries in its fragment, which browsers do not send to servers.

export interface LinkInvitation {
  invitation: string;
  name: string;
  /** Where the link says so: the role that it gives; empty otherwise. A hint for the join screen, the relay decides. */
  role: string;
  /** Join without asking: for scripts and wall displays. */
  join: boolean;
}

/** Reads `#invitation=SECRET&name=…&role=…&join=1`; an empty invitation where there is none. */
export function fromFragment(hash: string): LinkInvitation {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  return {
    invitation: (fields.get("invitation") ?? "").trim(),
    name: (fields.get("name") ?? "").trim().slice(0, 64),
    role: (fields.get("role") ?? "").trim(),
    join: fields.get("join") === "1",
  };
}

/** The secret of a link that registers a passkey (`#passkey=SECRET`); empty where it is none. */
export function passkeyLink(hash: string): string {
  return (new URLSearchParams(hash.replace(/^#/, "")).get("passkey") ?? "").trim();
}

/** The secret out of what a person pasted: a whole link, a fragment, or the secret alone. */
export function fromPasted(text: string): string {
  const trimmed = text.trim();
  const hash = trimmed.indexOf("#");
  if (hash >= 0) return fromFragment(trimmed.slice(hash)).invitation;
  return trimmed.includes("invitation=") ? fromFragment(trimmed).invitation : trimmed;
}

/** Whether somebody of that role may send pictures and sound; null where the link does not say. */
export function maySend(role: string): boolean | null {
  return role === "" ? null : ["local", "expert"].includes(role);
}
