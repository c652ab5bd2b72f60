/**
 * Waits no longer than it should: what `work` comes to, or once `ms` have passed what `late` returns or throws. The
 * timer ends with the wait; work that is late goes on, and how it ends is nobody's business any more.
 */
export async function within<T, Late>(ms: number, work: PromiseLike<T>, late: () => Late): Promise<T | Late> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  try {
    return await Promise.race([work, over.then(late)]);
  } finally {
    clearTimeout(timer);
  }
}
