import { pictureUrl } from "./api.js";
import { byId } from "./dom.js";
import { showPicture } from "./enlarge.js";

const MIB = 2 ** 20;
const NUM_SEEDS = 10_000;
const FINE_SEEDS = [138, 41, 153, 161, 63, 105, 182]; // dealt first

/*
 * A source is what an edit starts from:
 *   {kind: "seed", seed, title}            a scene of the generator
 *   {kind: "photo", photo, title}          a file
 *   {kind: "latent", latent, image, title} an earlier edit: its code and its picture, as data URIs
 */
export const scene = (seed) => ({ kind: "seed", seed, title: `scene ${seed}` });

/** Put a source into the form of an edit. */
export async function appendSource(form, source) {
  if (source.kind === "seed") form.append("seed", source.seed);
  if (source.kind === "photo") form.append("image", source.photo);
  if (source.kind === "latent") form.append("latent", await (await fetch(source.latent)).blob(), "latent.safetensors");
}

/** The picture to edit, and the ways to choose another. `onChange` is called when it was chosen here. */
export function createSource({ limits, onChange, onProblem }) {
  const img = byId("source-picture");
  const dice = byId("dice");
  const upload = byId("upload-image");
  let source = null;
  let photoUrl = "";
  const fine = [...FINE_SEEDS];

  function show(next) {
    source = next;
    URL.revokeObjectURL(photoUrl);
    photoUrl = next.kind === "photo" ? URL.createObjectURL(next.photo) : "";
    img.alt = `The picture to edit: ${next.title}`;
    return showPicture(img, photoUrl || next.image || pictureUrl(next.seed));
  }

  async function usePhoto(file) {
    if (file.size > limits.max_image_mib * MIB) {
      onProblem(
        "The picture is too large",
        new Error(
          `it has ${Math.ceil(file.size / MIB)} MiB, and ${limits.max_image_mib} are allowed. Scale it down or compress it`,
        ),
      );
      return;
    }
    const size = await sizeOf(file);
    if (!size) {
      onProblem(
        "The picture cannot be opened",
        new Error("this browser reads no picture in it. Export it as PNG, JPEG or WebP and choose it again"),
      );
    } else if (size.width * size.height > limits.max_image_pixels) {
      onProblem(
        "The picture is too large",
        new Error(
          `it has ${size.width} x ${size.height} pixels, and ${limits.max_image_pixels} are allowed. Scale it down`,
        ),
      );
    } else {
      show({ kind: "photo", photo: file, title: file.name || "pasted picture" });
      onChange();
    }
  }

  dice.addEventListener("click", () => {
    show(scene(fine.shift() ?? Math.floor(Math.random() * NUM_SEEDS)));
    onChange();
  });
  upload.addEventListener("change", () => {
    if (upload.files[0]) usePhoto(upload.files[0]);
    upload.value = ""; // the same file may be chosen again
  });

  return {
    get value() {
      return source;
    },
    show,
    usePhoto,
    lock(locked) {
      dice.disabled = upload.disabled = locked;
    },
  };
}

/** The width and height of a picture file; null where this browser reads none in it. */
async function sizeOf(file) {
  const probe = new Image();
  probe.src = URL.createObjectURL(file);
  try {
    await probe.decode();
    return { width: probe.naturalWidth, height: probe.naturalHeight };
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(probe.src);
  }
}
