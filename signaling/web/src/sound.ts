// Sound that is only for this person: the level of the microphone, and the test tone.

/** Measures a track until it is told to stop. `onLevel` gets 0 to 1, about twenty times a second. */
export function watchLevel(track: MediaStreamTrack, onLevel: (level: number) => void): () => void {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    onLevel(levelOf(samples));
  }, 50);
  return () => {
    clearInterval(timer);
    void context.close();
  };
}

/** 0 at -60 dB and below, 1 at full scale: as loud as it seems. */
export function levelOf(samples: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < samples.length; i += 1) sum += (samples[i] ?? 0) ** 2;
  const decibels = 10 * Math.log10(sum / Math.max(1, samples.length) + 1e-12);
  return Math.min(1, Math.max(0, 1 + decibels / 60));
}

/** Three short tones on that loudspeaker. */
export async function playTone(speaker: string): Promise<void> {
  const context = new AudioContext();
  const gain = context.createGain();
  const out = context.createMediaStreamDestination();
  gain.gain.value = 0;
  const tone = context.createOscillator();
  tone.frequency.value = 660;
  tone.connect(gain).connect(out);
  const audio = new Audio();
  audio.srcObject = out.stream;
  if ("setSinkId" in audio) await audio.setSinkId(speaker).catch(() => undefined);
  await context.resume();
  const begin = context.currentTime + 0.1;
  for (const i of [0, 1, 2]) {
    gain.gain.setTargetAtTime(0.25, begin + i * 0.4, 0.01);
    gain.gain.setTargetAtTime(0, begin + i * 0.4 + 0.22, 0.01);
  }
  tone.onended = () => void context.close();
  tone.start(begin);
  tone.stop(begin + 1.3);
  await audio.play();
}
