// How Chromium is started for the tests: headless, with a camera and a microphone of its own that make known pictures and tones.
import { chromium } from "playwright-core";

/**
 * `fakeUi`: false leaves questions for devices to the (absent) person, which refuses them. `microphone` (WAV) and `camera`
 * (Y4M) are files that are played again and again instead of the browser's own beep and picture. `autoplay`: false lets no
 * sound out before somebody clicked. `anyCertificate`: takes a
 * relay's certificate without knowing who signed it. `fieldTrials`: what the browser tries out, as `Name/Group/Name/Group/`.
 */
export function launch({ fakeUi = true, autoplay = true, microphone, camera, anyCertificate = false, fieldTrials } = {}) {
  return chromium.launch({
    executablePath: process.env.TROCAR_CHROMIUM ?? "/usr/bin/chromium",
    timeout: 120_000,
    // Otherwise the browser hides the sound of every page.
    ignoreDefaultArgs: ["--mute-audio"],
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      "--use-fake-device-for-media-stream", "--auto-select-desktop-capture-source=Entire screen",
      ...(fakeUi ? ["--use-fake-ui-for-media-stream"] : []),
      `--autoplay-policy=${autoplay ? "no-user-gesture-required" : "document-user-activation-required"}`,
      ...(microphone ? [`--use-file-for-fake-audio-capture=${microphone}`] : []),
      ...(camera ? [`--use-file-for-fake-video-capture=${camera}`] : []),
      ...(anyCertificate ? ["--ignore-certificate-errors"] : []),
      ...(fieldTrials ? [`--force-fieldtrials=${fieldTrials}`] : []),
    ],
  });
}
