import { capital } from "./dom.js";

const PICTURE = /\.(png|jpe?g|webp|bmp|gif|tiff?|ppm)$/i;
const SOUND = /\.(wav|flac|ogg|oga|opus|mp3|m4a|aac|webm|mp4|mov)$/i;

/** Pictures and sounds that are dropped or pasted anywhere on the page. */
export function acceptDrops({ onPicture, onSound, onOther }) {
  let depth = 0;
  const leave = () => {
    depth = 0;
    delete document.body.dataset.drag;
  };

  function take(files) {
    const file = files[0];
    if (!file) return;
    const kind = kindOf(file);
    if (kind === "picture") onPicture(file);
    else if (kind === "sound") onSound(file);
    else
      onOther(
        new Error(
          `${capital(file.name || "this")} is neither a picture nor a sound. Drop a PNG, JPEG or WebP, or a WAV, FLAC, OGG, MP3, M4A or WebM`,
        ),
      );
  }

  addEventListener("dragenter", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    depth += 1;
    document.body.dataset.drag = "over";
  });
  addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) leave();
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    leave();
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return; // words, for the text field
    event.preventDefault();
    take(event.clipboardData.files);
  });
}

/** By the type, or by the name where the system knows no type. */
function kindOf({ type, name }) {
  if (type.startsWith("image/") || (!type && PICTURE.test(name))) return "picture";
  if (/^(audio|video)\//.test(type) || SOUND.test(name)) return "sound";
  return "other";
}
