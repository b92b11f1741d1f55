/*
 * Small pictures, shown large. A browser's own scaling of 64 x 64 pixels to 600 is either blocks or fog; this smooths
 * the staircase away and then steepens the edges without overshoot, which suits flat painted shapes. Only what is on
 * the screen passes through here: what is downloaded are the model's own pixels.
 */
const SIDE = 384;
const LARGEST = 192; // pictures above this look well as they are
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
  const stair = Math.round(factor / 3);
  plane = blur(blur(plane, side, stair), side, stair);
  for (let round = 0; round < 2; round++) {
    const edge = Math.round(factor / 2);
    const soft = blur(blur(plane, side, edge), side, edge);
    const [low, high] = extremes(plane, side, Math.round(factor / 3));
    for (let i = 0; i < plane.length; i++) {
      const steep = plane[i] + STEEPNESS * (plane[i] - soft[i]);
      plane[i] = steep < low[i] ? low[i] : steep > high[i] ? high[i] : steep;
    }
  }
  plane = blur(plane, side, 1);
  for (let i = 0; i < plane.length; i++) data[4 * i + channel] = plane[i];
}

/** The mean of the square of neighbours. Each pass goes along rows and transposes, so that two do both axes. */
function blur(plane, side, reach) {
  const share = 1 / (2 * reach + 1);
  let from = plane;
  for (let pass = 0; pass < 2; pass++) {
    const to = new Float32Array(plane.length);
    for (let y = 0, row = 0; y < side; y++, row += side) {
      const last = row + side - 1;
      let sum = from[row] * reach;
      for (let k = 0; k <= reach; k++) sum += from[row + k];
      for (let x = 0, at = y; x < side; x++, at += side) {
        to[at] = sum * share;
        const enters = row + x + reach + 1;
        const leaves = row + x - reach;
        sum += from[enters > last ? last : enters] - from[leaves < row ? row : leaves];
      }
    }
    from = to;
  }
  return from;
}

/** The least and the greatest value in the square of neighbours. */
function extremes(plane, side, reach) {
  let [lows, highs] = [plane, plane];
  for (let pass = 0; pass < 2; pass++) {
    const [low, high] = [new Float32Array(plane.length), new Float32Array(plane.length)];
    for (let y = 0, row = 0; y < side; y++, row += side) {
      for (let x = 0, at = y; x < side; x++, at += side) {
        let [least, greatest] = [Infinity, -Infinity];
        const end = row + Math.min(side - 1, x + reach);
        for (let i = row + Math.max(0, x - reach); i <= end; i++) {
          if (lows[i] < least) least = lows[i];
          if (highs[i] > greatest) greatest = highs[i];
        }
        low[at] = least;
        high[at] = greatest;
      }
    }
    [lows, highs] = [low, high];
  }
  return [lows, highs];
}
