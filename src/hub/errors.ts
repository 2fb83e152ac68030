import { CandlewickError, type ErrorCode } from "../errors.js";

/** The codes that only downloading has. */
type HubErrorCode = "MODEL_GATED" | "DOWNLOAD_FAILED";

export function hubError(code: HubErrorCode, message: string, options?: ErrorOptions): CandlewickError {
  return new CandlewickError(code as string as ErrorCode, message, options);
}
