import { basename } from "node:path";

/** A model's public name: without its path on this machine; a hub id has no such path. */
export function publicName(source: string): string {
  return /^(\.|[/\\]|[a-z]:)/i.test(source) ? basename(source) : source;
}
