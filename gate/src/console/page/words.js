// The page's words in Japanese. The gate speaks English to every console; what is not known here is shown as it comes.

const JA = {
  // The page itself
  "Handing over": "操作権の受け渡し", "To whom?": "誰に渡しますか", "What?": "何を渡しますか", "Step of the operation": "手術の段階",
  "Back": "戻る", "Link to the expert": "指導医との接続", "Connected": "接続中", "News": "お知らせ",
  "Timers, thresholds, counters": "タイマー・しきい値・計数", "State": "状態", "For": "経過", "Epoch": "エポック", "This page": "この画面",
  "I have control. Keys: Space, T": "操作権を取る。キー：スペース、T", "Nobody moves. Keys: E, Esc Esc": "全員停止。キー：E、Esc 2回",
  "not connected": "未接続", "Hands off until this page shows who is in control.": "誰が操作中か表示されるまで、手を触れないでください。",
  "CONTROL: UNKNOWN - connecting to the gate": "操作権：不明 ― ゲートに接続しています", "CONTROL: UNKNOWN - hands off": "操作権：不明 ― 手を触れないでください",
  "This page has no word from the gate.": "ゲートからの応答がありません。",
  "Open the link that the gate printed at its start.": "ゲートが起動時に表示したリンクを開いてください。",
  "TAKE and ESTOP are sent all the same; the pedal and the hardware override work without this page.":
    "TAKE と ESTOP はそれでも送信されます。ペダルとハードウェア優先スイッチはこの画面なしで働きます。",
  "This page was in the background: it was no live console meanwhile.": "この画面は背後にあったため、その間は操作卓として働いていませんでした。",
  "CLOSE ends the session for good": "CLOSE：セッションを完全に終了します", "END CONSENT: no grant until a new document comes": "同意の取り下げ：新しい書類が届くまで操作権を渡せません",
  "Choose to whom, and what.": "相手と内容を選んでください。", "OFFER did not count: control unknown.": "OFFER は無効です：操作権が不明です。",
  // Large words
  "LOCAL": "術者", "REMOTE": "遠隔", "NOBODY": "停止", "E-STOP": "非常停止", "CLOSED": "終了", "UNKNOWN": "不明",
  "CONTROL: LOCAL - you operate": "操作権：術者（LOCAL）― あなたが操作中です",
  "CONTROL: NOBODY - position held, energy off": "操作権：なし ― 位置保持、エネルギー切",
  "CONTROL: NOBODY - EMERGENCY STOP, latched": "操作権：なし ― 非常停止（保持中）",
  "CONTROL: NOBODY - the session is closed": "操作権：なし ― セッション終了",
  "CONTROL: UNKNOWN - the gate does not answer": "操作権：不明 ― ゲートが応答しません",
  "OFFER hands over, step by step.": "OFFER で段階的に操作権を渡します。", "TAKE gives control back to you at once.": "TAKE で直ちに操作権を取り戻します。",
  "TAKE gives control to you.": "TAKE で操作権を取ります。", "RESET ends the stop and leads to HOLD; then TAKE.": "RESET で非常停止を解除して HOLD に移り、その後 TAKE を押します。",
  "Nothing can be taken or given any more.": "これ以上、操作権の受け渡しはできません。", "MOTION RUNS": "動作中",
  "MOTION STOPPED": "動作停止", "Offer ends in": "OFFER の残り", "Time to CONFIRM": "CONFIRM までの残り", "Grant ends in": "付与の残り",
  "The link is being measured.": "接続品質を測定中です。", "The link is good: CONFIRM hands over, once the expert is aligned.": "接続は良好です。指導医の位置合わせ後に CONFIRM で渡します。",
  "The link is AMBER: CONFIRM AMBER (A) hands over all the same.": "接続は注意です。CONFIRM AMBER（A）でそのまま渡します。",
  "The link is AMBER: CONFIRM, and then CONFIRM AMBER.": "接続は注意です。CONFIRM、続けて CONFIRM AMBER を押してください。", "A link gate is RED: the offer ends.": "接続が不良です。OFFER は終わります。",
  // Why motion is stopped
  "waiting for the re-clutch": "クラッチの入れ直し待ち", "nothing fresh from the expert": "指導医からの信号が途絶", "presence released": "デッドマンスイッチが離れた",
  "clutch open": "クラッチが切れている", "picture too old": "映像の遅延が大きい", "camera moved by somebody else": "ほかの操作でカメラが動いた",
  // Alarms
  "SECOND GATE": "二つ目のゲート", "it has or wants the device: stop it, or use the override": "装置を使用中、または要求しています。停止させるか、ハードウェア優先スイッチを使ってください",
  "DEVICE": "装置", "it latched, is silent or lost its selection: look at the device": "ラッチ、無応答、または選択の消失です。装置を確認してください",
  "EXPERT LOST": "指導医との接続断", "no valid sign of the expert, or far too slow: TAKE": "有効な信号がないか、遅すぎます：TAKE",
  "EXPERT'S PICTURE": "指導医側の映像", "it was too old: TAKE": "遅延が大きすぎました：TAKE", "STOPPED TOO LONG": "長い停止", "motion was stopped for too long: TAKE": "動作停止が長すぎました：TAKE",
  "CERTIFICATE REVOKED": "証明書の失効", "the expert's certificate is no longer valid: TAKE": "指導医の証明書は無効です：TAKE",
  "STOP FROM THE NETWORK": "ネットワークからの停止", "somebody pressed ESTOP: see the news": "停止が押されました。お知らせを見てください",
  "CONSOLE WAS LOST": "操作卓の喪失", "no console of this gate was alive: TAKE": "応答する操作卓がありませんでした：TAKE",
  "HARDWARE OVERRIDE": "ハードウェア優先", "the device is given to local by its own switch": "装置は自身のスイッチで術者に渡されています",
  "REMOTE REFUSED": "遠隔操作不可", "epochs cannot be relied on; no grant in this session": "エポックの記録を信頼できません。このセッションでは付与できません",
  "REMOTE NOT POSSIBLE": "遠隔操作の準備不良", "a certificate, key or port of this gate cannot be used: no grant": "ゲートの証明書・鍵・ポートのいずれかが使えません：付与できません",
  "DISK": "ディスク", "the audit chain could not be written: no grant": "監査記録を書き込めません：付与できません",
  "NO CONSENT": "同意なし", "consent for remote operation is not active: no grant": "遠隔操作の同意が有効ではありません：付与できません",
  "UNPROTECTED": "保護なし", "one of two paths is gone; the other's loss ends REMOTE": "指導医への二経路の一方が切断。もう一方も切れると遠隔操作は終了します",
  "OVERLOAD": "過負荷", "outputs of the gate were lost": "ゲートの出力が失われました",
  // Link gates
  "Loop age p95": "往復遅延 p95", "Jitter p95": "ゆらぎ p95", "Loss": "損失", "Frame age": "映像の遅延", "Paths": "経路", "2, so that one may be lost": "二経路なら一方の切断に耐えます",
  "GREEN": "良好", "AMBER": "注意", "RED": "不良", "measuring": "測定中", "OLD": "古い", "idle": "待機", "PROTECTED": "保護あり",
  // Acts
  "OFFER": "OFFER（渡す）", "CONFIRM": "CONFIRM（確定）", "CONFIRM AMBER": "CONFIRM AMBER（注意のまま確定）", "WITHDRAW": "WITHDRAW（取り下げ）",
  "RESET": "RESET（解除）", "MUTE": "MUTE（無視）", "END CONSENT": "END CONSENT（同意取り下げ）", "CLOSE": "CLOSE（終了）",
  "no offer is open": "OFFER がありません", "no emergency stop is latched": "非常停止ではありません", "the session is closed": "セッションは終了しています",
  "an offer is open": "OFFER 中です", "TAKE first": "先に TAKE を押してください", "WITHDRAW first": "先に WITHDRAW を押してください", "CONFIRM first": "先に CONFIRM を押してください",
  "a certificate, key or port cannot be used": "証明書・鍵・ポートのいずれかが使えません",
  "remote is refused in this session": "このセッションでは遠隔操作できません", "consent is not active": "同意が有効ではありません", "no expert is connected": "指導医が接続していません",
  "no expert is ready": "指導医の準備ができていません", "link gates are being measured": "接続品質を測定中です", "a link gate is red": "接続品質が不良です",
  "only where a link gate is amber": "接続品質が注意のときだけ使えます", "nobody pressed STOP": "停止は押されていません", "it is closed": "終了しています",
  // People
  "may observe": "見学", "may draw": "描画まで", "up to camera": "カメラまで", "up to instruments": "器具まで", "up to energy": "エネルギーまで",
  "no HELLO yet": "挨拶待ち", "its token permits nothing that moves": "操作の権限がありません", "not an expert": "指導医ではありません",
  "camera": "カメラ", "instruments": "器具", "energy": "エネルギー", "nothing": "なし", "an expert": "指導医",
  "CONSENT ENDED: the holder goes on until you TAKE": "同意が終了：TAKE を押すまで遠隔操作は続きます",
};

const set = (text) => text.split(" + ").map(one).join("・");
const list = (text) => text.split(", ").map(one).join("、");
const spell = (time) => time.replace(/ h\b/, " 時間").replace(/ min\b/, " 分").replace(/ s\b/, " 秒");
const one = (text) => JA[text] ?? text;

// What others wrote, names and reasons, is passed on as it is.
const PATTERNS = [
  [/^CONTROL: REMOTE - (.+) holds (.+)$/, (who, what) => `操作権：遠隔（REMOTE）― ${one(who)} が${set(what)}を操作中`],
  [/^OFFERED to (.+): (.+)\. Waits for the expert's "I have control"\.$/, (who, what) => `${one(who)} に OFFER 中：${set(what)}。指導医の受諾を待っています。`],
  [/^(.+) accepted ([a-z+ ]+)\. (.*)$/, (who, what, turn) => `${one(who)} が受諾：${set(what)}。${one(turn)}`],
  [/^CONFIRMED: the grant to (.+) is on its way to the disk\.$/, (who) => `確定：${one(who)} への付与を記録しています。`],
  [/^MOTION STOPPED: (.+)$/, (why) => `動作停止：${list(why)}`],
  [/^(Offer ends in|Time to CONFIRM|Grant ends in): ([\d.]+) s$/, (what, s) => `${one(what)}：${s} 秒`],
  [/^Step: (.+)$/, (step) => `段階：${step}`],
  [/^live, (\d+) ms$/, (ms) => `接続中、${ms} ms`],
  [/^OLD: ([\d.]+) s$/, (s) => `古い：${s} 秒`],
  [/^(\d+ (?:h|min|s)(?: \d\d (?:min|s))?)( ago)?$/, (time, ago) => `${spell(time)}${ago ? "前" : ""}`],
  [/^(.+) ASKS for ([a-z+ ]+): (.*)$/, (who, what, why) => `${who} が${set(what)}の操作権を依頼：${why}`],
  [/^STOP by (.+?): (.*)$/, (who, why) => `${who} が停止を押しました：${why}`],
  [/^(.+) not now: (.+)\.$/, (act, why) => `${act} は今できません：${one(why)}。`],
  [/^(.+) did not count: control unknown\.$/, (act) => `${act} は無効です：操作権が不明です。`],
  [/^(.+): press it again\.$/, (warning) => `${one(warning)}。もう一度押してください。`],
  [/^([A-Z ]+): done$/, (act) => `${act}：完了`],
  [/^([A-Z ]+) REFUSED: (.+)$/, (act, why) => `${act} は拒否されました：${one(why)}`],
  [/^([A-Z-]+): NO ANSWER\. Use the pedal or the hardware override\.$/, (act) => `${act}：応答がありません。ペダルかハードウェア優先スイッチを使ってください。`],
  [/^ok to (.+), red over (.+)$/, (ok, red) => `${ok} まで良好、${red} 超で不良`],
  [/^ok to (.+)$/, (ok) => `${ok} まで良好`],
  [/^stops over (.+)$/, (most) => `${most} 超で停止`],
  [/^DEVICE: obeys (nobody|local|remote), fence (\d+)$/, (whom, fence) => `装置：${{ nobody: "保持中", local: "術者", remote: "遠隔" }[whom]}に従う、フェンス ${fence}`],
  [/^! (.+)$/, (rest) => `! ${tr(rest)}`],
];

/** `en` or `ja`: what was chosen on this page, else what the browser prefers. */
export let language = localStorage.getItem("language") ?? (navigator.language.startsWith("ja") ? "ja" : "en");

export function setLanguage(wanted) {
  language = wanted;
  localStorage.setItem("language", wanted);
}

/** The text in this page's language. */
export function tr(text) {
  return language === "ja" ? inJapanese(text) : text;
}

export function inJapanese(text) {
  const exact = JA[text];
  if (exact !== undefined) return exact;
  for (const [pattern, say] of PATTERNS) {
    const found = pattern.exec(text);
    if (found) return say(...found.slice(1));
  }
  return /^[a-z]+( \+ [a-z]+)+$/.test(text) ? set(text) : text;
}
