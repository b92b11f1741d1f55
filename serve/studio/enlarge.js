/*
 * Small pictures, shown large. A browser's own scaling of 64 x 64 pixels to 600 is either blocks or fog; this smooths
 * the staircase away and then steepens the edges without overshoot, which suits flat painted shapes. Only what is on
 * the screen passes through here: what is downloaded are the model's own pixels.
 */
const SIDE = 384;
const LARGEST = 192; // pictures above this look well as they are
const STAIR = 0.375; // widths in pixels of the small picture
const EDGE = 0.5;
const STEEPNESS = 2.5;

const wanted = new WeakMap();
const made = new WeakMap();

/** Show the picture at `url` in an <img>, enlarged if it is small. Of overlapping calls the last one wins. */
export async function showPicture(img, url) {
  wanted.set(img, url);
  const shown = await enlarged(url).catch(() => url);
  if (wanted.get(img) !== url) return URL.revokeObjectURL(shown === url ? "" : shown);
  const old = made.get(img);
  img.src = shown;
  made.set(img, shown === url ? undefined : shown);
  await img.decode().catch(() => {}); // what replaced it meanwhile, or a broken file, which `error` tells
  if (old) URL.revokeObjectURL(old);
}

async function enlarged(url) {
  const small = new Image();
  small.src = url;
  await small.decode();
  const side = small.naturalWidth;
  if (side > LARGEST || side !== small.naturalHeight || !canReadBack()) return url;
  const factor = Math.ceil(SIDE / side);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side * factor;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let channel = 0; channel < 3; channel++) paint(pixels.data, channel, canvas.width, factor);
  context.putImageData(pixels, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve));
  return URL.createObjectURL(blob);
}

/** Some browsers give back noise instead of a canvas's pixels, against fingerprinting. */
function canReadBack() {
  const context = Object.assign(document.createElement("canvas"), { width: 8, height: 8 }).getContext("2d");
  context.fillStyle = "#5c9674";
  context.fillRect(0, 0, 8, 8);
  const { data } = context.getImageData(0, 0, 8, 8);
  return data.every((value, i) => value === [0x5c, 0x96, 0x74, 0xff][i % 4]);
}

function paint(data, channel, side, factor) {
  let plane = new Float32Array(side * side);
  for (let i = 0; i < plane.length; i++) plane[i] = data[4 * i + channel];
  plane = blur(plane, side, STAIR * factor);
  const reach = Math.max(1, Math.round(STAIR * factor));
  for (let round = 0; round < 2; round++) {
    const soft = blur(plane, side, EDGE * factor);
    const low = extreme(plane, side, reach, Math.min);
    const high = extreme(plane, side, reach, Math.max);
    for (let i = 0; i < plane.length; i++) {
      const steep = plane[i] + STEEPNESS * (plane[i] - soft[i]);
      plane[i] = Math.min(high[i], Math.max(low[i], steep));
    }
  }
  plane = blur(plane, side, 0.6);
  for (let i = 0; i < plane.length; i++) data[4 * i + channel] = plane[i];
}

/** Blur with a Gaussian kernel, rows first, then columns. */
function blur(plane, side, sigma) {
  const reach = Math.ceil(2.5 * sigma);
  const kernel = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * sigma ** 2)));
  const total = kernel.reduce((sum, weight) => sum + weight);
  const weights = kernel.map((weight) => weight / total);
  return bothWays(plane, side, reach, (line, at, out) => {
    let sum = 0;
    for (let k = -reach; k <= reach; k++) sum += weights[k + reach] * line[at + k];
    return sum;
  });
}

/** The least, or greatest, value of each square of neighbours. */
function extreme(plane, side, reach, pick) {
  return bothWays(plane, side, reach, (line, at) => {
    let found = line[at];
    for (let k = -reach; k <= reach; k++) found = pick(found, line[at + k]);
    return found;
  });
}

/** Run `filter` over lines, padded by `reach` with the values at their ends, along one axis and then the other. */
function bothWays(plane, side, reach, filter) {
  const line = new Float32Array(side + 2 * reach);
  let from = plane;
  for (const [step, stride] of [[1, side], [side, 1]]) {
    const to = new Float32Array(plane.length);
    for (let row = 0; row < side; row++) {
      for (let i = -reach; i < side + reach; i++) line[i + reach] = from[row * stride + Math.min(side - 1, Math.max(0, i)) * step];
      for (let i = 0; i < side; i++) to[row * stride + i * step] = filter(line, i + reach);
    }
    from = to;
  }
  return from;
}
