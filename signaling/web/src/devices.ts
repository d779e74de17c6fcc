// Cameras, microphones and screens: opening them, listing them, and why one could not be opened.

export type DeviceKind = "camera" | "microphone";
export type DeviceFault = "denied" | "missing" | "busy" | "insecure" | "failed";

/** Device ids; empty for the browser's choice. */
export interface DeviceChoice {
  camera: string;
  microphone: string;
  speaker: string;
}

export const NO_CHOICE: DeviceChoice = { camera: "", microphone: "", speaker: "" };

/** What the browser's error means for a person (Media Capture and Streams, section 10.2). */
export function deviceFault(name: string): DeviceFault {
  switch (name) {
    case "NotAllowedError":
    case "SecurityError":
      return "denied";
    case "NotFoundError":
    case "OverconstrainedError":
      return "missing";
    case "NotReadableError":
    case "AbortError":
      return "busy";
    case "InsecureContext":
      return "insecure";
    default:
      return "failed";
  }
}

/** Opens one device. Rejects with a `DeviceError`. */
export async function openDevice(kind: DeviceKind, id: string): Promise<MediaStreamTrack> {
  const chosen = id === "" ? {} : { deviceId: { exact: id } };
  const camera = { ...chosen, width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  // Voices only: echo and noise go. What an instrument sounds like is sent by `trocar publish --audio`.
  const microphone = { ...chosen, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  const open = (wanted: typeof chosen) =>
    userMedia(kind === "camera" ? { video: { ...camera, ...wanted } } : { audio: { ...microphone, ...wanted } });
  try {
    return await open(chosen);
  } catch (error) {
    // The device that was chosen the last time is not plugged in today: take what there is.
    if (id === "" || !(error instanceof DeviceError) || error.fault !== "missing") throw error;
    return openDevice(kind, "");
  }
}

/** Lets the person choose a screen or a window. */
export async function openScreen(): Promise<MediaStreamTrack> {
  try {
    const stream = await media().getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: false });
    return firstOf(stream);
  } catch (error) {
    throw asFault(error);
  }
}

/** What is connected. Names and ids are there once the person has allowed a device. */
export async function listDevices(): Promise<MediaDeviceInfo[]> {
  try {
    return await media().enumerateDevices();
  } catch {
    return [];
  }
}

export class DeviceError extends Error {
  constructor(readonly fault: DeviceFault) {
    super(fault);
  }
}

async function userMedia(wanted: MediaStreamConstraints): Promise<MediaStreamTrack> {
  try {
    return firstOf(await media().getUserMedia(wanted));
  } catch (error) {
    throw asFault(error);
  }
}

function firstOf(stream: MediaStream): MediaStreamTrack {
  const track = stream.getTracks()[0];
  if (track === undefined) throw new DeviceError("missing");
  return track;
}

/** Pages that are not secure have no such thing. */
function media(): MediaDevices {
  const devices = navigator.mediaDevices as MediaDevices | undefined;
  if (devices?.getUserMedia === undefined) throw new DeviceError("insecure");
  return devices;
}

function asFault(error: unknown): DeviceError {
  if (error instanceof DeviceError) return error;
  return new DeviceError(deviceFault(error instanceof DOMException ? error.name : ""));
}
