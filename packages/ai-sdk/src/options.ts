/** `providerOptions.candlewick`: options that the AI SDK has no setting for. */
import { CandlewickError } from "candlewick";
import { PROVIDER } from "./specification.js";

/**
 * The provider's own options of a call. `elsewhere` are those that have another place, with what to do instead. The
 * others are checked by the method that gets them, which refuses what it does not know.
 */
export function ownOptions(given: Record<string, object> | undefined, elsewhere: Readonly<Record<string, string>>): Record<string, unknown> {
  const own: unknown = given?.[PROVIDER] ?? {};
  if (typeof own !== "object" || own === null || Array.isArray(own)) {
    throw new CandlewickError("OPTION_INVALID", `providerOptions.${PROVIDER} must be an object of options`);
  }
  const misplaced = Object.keys(own).find((name) => Object.hasOwn(elsewhere, name));
  if (misplaced !== undefined) {
    throw new CandlewickError("OPTION_INVALID", `providerOptions.${PROVIDER}: ${misplaced} cannot be given here; ${elsewhere[misplaced]}`);
  }
  return own as Record<string, unknown>;
}

/** Without the keys that have no value, so that a model's own defaults count. */
export function defined<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>;
}
