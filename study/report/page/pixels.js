// Decodes images and paints maps over them.

const darkness = matchMedia("(prefers-color-scheme: dark)");
const VIRIDIS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];

/** Decode a data URI to ImageData. */
async function pixels(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const context = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

/** Decompress base64 text to bytes; results are cached. */
const inflated = (() => {
  const cache = new Map();
  return async (text) => {
    if (!cache.has(text)) {
      const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
      cache.set(text, new Uint8Array(await new Response(stream).arrayBuffer()));
    }
    return cache.get(text);
  };
})();

/** Return the viridis colour [red, green, blue] of a share from 0 to 1. */
function heat(share) {
  const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const below = Math.min(VIRIDIS.length - 2, Math.floor(place));
  return VIRIDIS[below].map((x, i) => x + (place - below) * (VIRIDIS[below + 1][i] - x));
}

/** Paint a map over an image. levels: 0 to 255, one per token of map.rows x map.columns. image: ImageData. style:
 * `pale` fades the image where a token was left out; `heat` paints colours over a faint image. */
function paint(canvas, levels, map, image, style) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const made = context.createImageData(width, height);
  const colours = Array.from({ length: 256 }, (_, level) => heat(level / 255));
  const [paper, ink] = darkness.matches ? [26, 0.1] : [219, 0.12];
  const across = Array.from({ length: width }, (_, x) => Math.floor((x / width) * map.columns));
  const from = Array.from({ length: width }, (_, x) => 4 * Math.floor((x / width) * image.width));
  for (let y = 0, to = 0; y < height; y++) {
    const row = Math.floor((y / height) * map.rows) * map.columns;
    const line = 4 * Math.floor((y / height) * image.height) * image.width;
    for (let x = 0; x < width; x++, to += 4) {
      const level = levels[row + across[x]];
      const at = line + from[x];
      const grey = (image.data[at] + image.data[at + 1] + image.data[at + 2]) / 3;
      const share = style === "pale" ? level / 255 : 0.28;
      for (let i = 0; i < 3; i++) {
        const under = style === "pale" ? image.data[at + i] : 76 + 0.4 * grey;
        const over = style === "pale" ? paper + ink * grey : colours[Math.round(level)][i];
        made.data[to + i] = share * under + (1 - share) * over;
      }
      made.data[to + 3] = 255;
    }
  }
  context.putImageData(made, 0, 0);
}
