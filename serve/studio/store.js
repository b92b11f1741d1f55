/**
 * Keeps values (blobs too) in this browser across reloads; in memory where the browser refuses that. Each preset has its
 * own: another generator's codes and scenes are of no use to it.
 */
export async function openStore(preset) {
  const name = ["soundguide-studio", preset].filter(Boolean).join(" ");
  const database = await open(name).catch(() => null);
  const spare = new Map();

  const ask = (mode, work) =>
    new Promise((resolve, reject) => {
      const transaction = database.transaction("values", mode);
      const request = work(transaction.objectStore("values"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });

  return {
    async get(key) {
      if (spare.has(key) || !database) return spare.get(key);
      return ask("readonly", (values) => values.get(key));
    },
    async put(key, value) {
      spare.delete(key);
      const kept =
        database &&
        (await ask("readwrite", (values) => values.put(value, key)).then(
          () => true,
          () => false,
        ));
      if (!kept) spare.set(key, value); // no database, or no room in it
    },
    async remove(key) {
      spare.delete(key);
      if (database) await ask("readwrite", (values) => values.delete(key));
    },
  };
}

function open(name) {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("values");
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error);
  });
}
