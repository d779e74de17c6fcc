// Who pressed STOP and who asked, with the time at which this page heard of it. Pure.

import { NOTICE_MS, NOTICES_KEPT } from "../limits.ts";
import { t } from "../strings.ts";
import type { ControlNotice, ParticipantInfo } from "../types.ts";

export interface Noted extends ControlNotice {
  id: number;
  nowMs: number;
  wallMs: number;
}

export class Notices {
  #kept: Noted[] = [];
  #id = 0;

  handle(nowMs: number, wallMs: number, notice: ControlNotice): void {
    const { what, person, reason } = notice;
    this.#kept.push({ id: (this.#id += 1), nowMs, wallMs, what, person, reason });
    if (this.#kept.length > NOTICES_KEPT) this.#kept.shift();
  }

  /** The newest first. */
  all(): readonly Noted[] {
    return [...this.#kept].reverse();
  }

  /** What the banner shows now: the newest; a STOP outweighs a request that came after it. */
  current(nowMs: number): Noted | null {
    const young = this.all().filter((notice) => nowMs - notice.nowMs <= NOTICE_MS);
    return young.find((notice) => notice.what === "estop") ?? young[0] ?? null;
  }
}

/** The server writes "name (participant)", by which local can mute somebody. The participant; null where none is named. */
export function participantOf(person: string): string | null {
  return / \(([^()\s]+)\)$/.exec(person)?.[1] ?? null;
}

/** By name alone where that says who it is: somebody here has it, and nobody else. */
export function shortPerson(person: string, people: readonly ParticipantInfo[]): string {
  const found = people.find((p) => p.participant === participantOf(person));
  const alike = people.filter((p) => p.name === found?.name).length;
  return found !== undefined && alike === 1 && person.startsWith(found.name) ? found.name : person;
}

export function noticeWords({ what, person, reason }: ControlNotice): string {
  // Nobody's news: the server itself saw it.
  if (what === "second_gate") return t.control.noticeSecondGate;
  const who = { estop: t.control.noticeEstop, request: t.control.noticeRequest }[what] ?? t.control.noticeOther;
  return [who(person), reason].filter(Boolean).join(": ");
}
