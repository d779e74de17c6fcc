"""The test card that every publisher of the interoperability matrix sends, and how a viewer tells that it sees it.

Upper three quarters: the left half is grey 64, the right half grey 192 (full range). Lower quarter: eight columns, one of
them white and the others black; the white one moves on four times a second. A viewer that sees both greys and the mark in
several columns has decoded moving pictures, and the right ones.

Sound is a sine tone; its frequency is found by a Fourier transform.
"""

import numpy as np

WIDTH, HEIGHT, FPS = 320, 240, 15
COLUMNS = 8
STEPS_PER_SECOND = 4
RATE = 48_000


def luma(seconds: float, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """The card's luma plane at a time, in video range (16 to 235)."""
    y = np.empty((height, width), np.uint8)
    y[:, : width // 2], y[:, width // 2 :] = limited(64), limited(192)
    strip = height * 3 // 4
    y[strip:, :] = limited(0)
    column = int(seconds * STEPS_PER_SECOND) % COLUMNS
    y[strip:, column * width // COLUMNS : (column + 1) * width // COLUMNS] = limited(255)
    return y


def limited(grey: int) -> int:
    return round(16 + grey * 219 / 255)


def tone(hz: float, first_sample: int, count: int) -> np.ndarray:
    """Samples of the tone, 16 bit."""
    t = np.arange(first_sample, first_sample + count) / RATE
    return (8_000 * np.sin(2 * np.pi * hz * t)).astype(np.int16)


class Picture:
    """What was seen of the card."""

    def __init__(self):
        self.frames, self.size, self.greys, self.columns = 0, (0, 0), [], set()

    def see(self, y: np.ndarray):
        """Takes a luma plane in video range."""
        h, w = y.shape
        self.frames, self.size = self.frames + 1, (w, h)
        full = (y.astype(np.float32) - 16) * 255 / 219
        rows = slice(h // 20, h * 7 // 10)
        left = full[rows, w // 20 : w * 9 // 20].mean()
        right = full[rows, w * 11 // 20 : w * 19 // 20].mean()
        self.greys = [round(float(left)), round(float(right))]
        strip = full[h * 16 // 20 : h * 19 // 20].mean(axis=0)
        means = [float(strip[int(w * (i + 0.25) / COLUMNS) : int(w * (i + 0.75) / COLUMNS)].mean()) for i in range(COLUMNS)]
        order = sorted(means)
        if order[-1] > 150 and order[-2] < 100:
            self.columns.add(means.index(order[-1]))

    def report(self) -> dict | None:
        if self.frames == 0:
            return None
        width, height = self.size
        greys, columns = self.greys, len(self.columns)
        return {"frames": self.frames, "width": width, "height": height, "greys": greys, "columns": columns}


class Sound:
    """What was heard of the tone: the last second of it."""

    def __init__(self):
        self.frames, self.rate, self.samples = 0, RATE, np.zeros(0)

    def hear(self, mono: np.ndarray, rate: int):
        self.frames, self.rate = self.frames + 1, rate
        self.samples = np.concatenate([self.samples, mono.astype(np.float64)])[-rate:]

    def report(self) -> dict | None:
        if self.frames == 0:
            return None
        level = float(np.sqrt(np.mean(self.samples**2)))
        spectrum = np.abs(np.fft.rfft(self.samples * np.hanning(len(self.samples))))
        hz = float(np.argmax(spectrum) * self.rate / max(len(self.samples), 1)) if level > 1 else 0.0
        return {"frames": self.frames, "hz": round(hz, 1), "level": round(level, 1)}
