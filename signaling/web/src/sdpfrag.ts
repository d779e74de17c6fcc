// SDP fragments of trickle ICE and ICE restart (RFC 8840, RFC 9725 section 4.3), as text in, text out. Pure.

export const SDP_FRAGMENT = "application/trickle-ice-sdpfrag";

export interface Trickled {
  mid: string;
  /** `candidate:…`, without the `a=`. */
  candidate: string;
}

/** The fragment for the bundle of an offer: its credentials and these candidates. Null where the offer has no credentials. */
export function fragmentOf(offer: string, candidates: readonly Trickled[], complete: boolean): string | null {
  const lines = offer.split(/\r?\n/);
  const ufrag = lines.find((l) => l.startsWith("a=ice-ufrag:"));
  const password = lines.find((l) => l.startsWith("a=ice-pwd:"));
  const media = lines.find((l) => l.startsWith("m="));
  const mid = lines.find((l) => l.startsWith("a=mid:"));
  if (ufrag === undefined || password === undefined || media === undefined || mid === undefined) return null;
  const group = lines.find((l) => l.startsWith("a=group:BUNDLE"));
  const kind = media.slice(2).split(" ")[0] ?? "video";
  const own = candidates.map((c) => `a=${c.candidate}`);
  const out = [...(group === undefined ? [] : [group]), `m=${kind} 9 UDP/TLS/RTP/SAVPF 0`, mid, ufrag, password, ...own];
  if (complete) out.push("a=end-of-candidates");
  return `${out.join("\r\n")}\r\n`;
}

/** Candidates that an offer carries, each once: with a bundle they are the same in each m-line. */
export function candidatesOf(offer: string): Trickled[] {
  const found = new Map<string, Trickled>();
  let mid = "";
  for (const line of offer.split(/\r?\n/)) {
    if (line.startsWith("a=mid:")) mid = line.slice(6);
    if (line.startsWith("a=candidate:")) found.set(line, { mid, candidate: line.slice(2) });
  }
  return [...found.values()];
}

/** The answer of before with the credentials and candidates of the answer to a restart. Null where the fragment has none. */
export function restarted(answer: string, fragment: string): string | null {
  const news = fragment.split(/\r?\n/);
  const ufrag = news.find((l) => l.startsWith("a=ice-ufrag:"));
  const password = news.find((l) => l.startsWith("a=ice-pwd:"));
  if (ufrag === undefined || password === undefined) return null;
  const candidates = news.filter((l) => l.startsWith("a=candidate:"));
  const out: string[] = [];
  for (const line of answer.split(/\r?\n/)) {
    if (line.startsWith("a=candidate:") || line.startsWith("a=end-of-candidates")) continue;
    if (line.startsWith("a=ice-ufrag:")) out.push(ufrag);
    else if (line.startsWith("a=ice-pwd:")) out.push(password, ...candidates);
    else if (line !== "") out.push(line);
  }
  return `${out.join("\r\n")}\r\n`;
}

/** The answer with the bit rate at which a sending Chromium begins, in kbit/s; other browsers leave the parameter alone. */
export function withStartBitrate(answer: string, kilobits: number): string {
  let video = false;
  const seen = new Set<string>();
  const lines = answer.split(/\r?\n/).map((line) => {
    if (line.startsWith("m=")) video = line.startsWith("m=video");
    const fmtp = /^a=fmtp:(\d+) (.*)$/.exec(line);
    if (!video || fmtp === null || /(^|;)\s*apt=/.test(fmtp[2] ?? "")) return line;
    seen.add(fmtp[1] ?? "");
    return `${line};x-google-start-bitrate=${kilobits}`;
  });
  // A codec without parameters, such as VP8, gets a line of its own after its rtpmap.
  video = false;
  return lines
    .flatMap((line) => {
      if (line.startsWith("m=")) video = line.startsWith("m=video");
      const map = /^a=rtpmap:(\d+) (VP8|VP9|AV1|H264|H265)\//i.exec(line);
      if (!video || map === null || seen.has(map[1] ?? "")) return [line];
      return [line, `a=fmtp:${map[1]} x-google-start-bitrate=${kilobits}`];
    })
    .join("\r\n");
}
