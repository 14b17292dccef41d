// Pixels of the images, and maps painted over them.

const darkness = matchMedia("(prefers-color-scheme: dark)");
const VIRIDIS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];

/** ImageData of a data URI, in the size that all images of the page have. */
async function pixels(uri) {
  const { width, height } = data.scope;
  const image = new Image();
  image.src = uri;
  await image.decode();
  const context = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

/** Bytes that were stored compressed, as text. */
const inflated = (() => {
  const known = new Map();
  return async (text) => {
    if (!known.has(text)) {
      const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
      known.set(text, new Uint8Array(await new Response(stream).arrayBuffer()));
    }
    return known.get(text);
  };
})();

/** Red, green, blue of a share from 0 to 1. */
function heat(share) {
  const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const below = Math.min(VIRIDIS.length - 2, Math.floor(place));
  return VIRIDIS[below].map((x, i) => x + (place - below) * (VIRIDIS[below + 1][i] - x));
}

const PAINTS = {
  /** The image where a token ran, and pale where it was left out. */
  pale(share, rgb, grey, i) {
    const pale = darkness.matches ? 26 + 0.1 * grey : 219 + 0.12 * grey;
    return share * rgb[i] + (1 - share) * pale;
  },
  /** Colours over a faint image. */
  heat(share, rgb, grey, i, colour) {
    return 0.28 * (76 + 0.4 * grey) + 0.72 * colour[i];
  },
};

/** levels: 0 to 255, one per token of map.rows x map.columns. image: ImageData. how: a name of PAINTS. */
function paint(canvas, levels, map, image, how) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const made = context.createImageData(width, height);
  const colours = Array.from({ length: 256 }, (_, level) => heat(level / 255));
  for (let y = 0; y < height; y++) {
    const row = Math.floor((y / height) * map.rows) * map.columns;
    const line = Math.floor((y / height) * image.height) * image.width;
    for (let x = 0; x < width; x++) {
      const level = levels[row + Math.floor((x / width) * map.columns)];
      const from = 4 * (line + Math.floor((x / width) * image.width));
      const to = 4 * (y * width + x);
      const rgb = image.data.subarray(from, from + 3);
      const grey = (rgb[0] + rgb[1] + rgb[2]) / 3;
      for (let i = 0; i < 3; i++) {
        made.data[to + i] = PAINTS[how](level / 255, rgb, grey, i, colours[Math.round(level)]);
      }
      made.data[to + 3] = 255;
    }
  }
  context.putImageData(made, 0, 0);
}
