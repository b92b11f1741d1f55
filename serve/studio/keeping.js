const LARGEST = 4 * 2 ** 20; // files above are not kept across reloads

/** What of a choice is worth keeping in the browser: no sound that the shelf gives again, no large file. */
export function keepable({ source, sound, ...others }) {
  return {
    ...others,
    source: source.photo?.size > LARGEST ? { ...source, photo: null } : source,
    sound: sound && lightSound(sound),
  };
}

function lightSound({ blob, ...about }) {
  return about.sample || blob.size > LARGEST ? about : { ...about, blob };
}

/** A kept source; of a photo that was too large to keep, what the edit made of it. */
export async function keptSource(source, result) {
  if (source.kind !== "photo" || source.photo) return source;
  return result ? { ...source, photo: await (await fetch(result.source_image)).blob() } : null;
}
