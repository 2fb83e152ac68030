/** What to do about an error, in a line for somebody at a shell: docs/errors.md has the whole of it. */
import type { ErrorCode } from "../errors.js";

const REMEDIES: Partial<Record<ErrorCode, string>> = {
  OPTION_UNKNOWN: "--help lists the options of each command.",
  OPTION_INVALID: "--help says what each option takes.",
  CONTEXT_OVERFLOW: "Use a shorter text or fewer new tokens; --max-length and --max-new-tokens set them.",
  TASK_UNSUPPORTED: "Use a model that was trained for this task.",
  TOKENIZER_MISSING: "Put the model's tokenizer.json (or vocab.json and merges.txt, or vocab.txt) into its folder.",
  CHAT_TEMPLATE_INVALID: "Mend the template; candlewick generate does not use it.",
  TOKENIZER_INVALID: "Fetch the tokenizer's files again.",
  MODEL_INVALID: "Fetch the model again, whole; or mend the file that is named.",
  WEIGHTS_CORRUPT: "Fetch the file again; in a Git repository, run git lfs pull.",
  MODEL_GATED: "Accept the model's terms on its page, and set HF_TOKEN.",
  DOWNLOAD_FAILED: "Try again: the next try goes on where this one stopped.",
  VOCABULARY_MISMATCH: "Check that tokenizer and weights are of the same model.",
  DATA_INVALID: "Mend the row, or name its columns with --column.",
  COLUMN_UNKNOWN: "Name the columns with --column role=name.",
  LABEL_UNKNOWN: "Name the classes with --label, in the order of their ids.",
  LOSS_NOT_FINITE: "Try a lower --learning-rate; --resume goes on from the last checkpoint.",
  OUTPUT_BUSY: "Wait for the other run, or use another --output.",
  OUTPUT_EXISTS: "Use --overwrite to write over it, --resume to go on with it, or another --output.",
  CHECKPOINT_MISMATCH: "Use the options of that run, or another --output.",
  INDEX_INVALID: "Copy the file again, or make the index anew.",
  CHECKPOINT_CORRUPT: "Begin anew, without --resume.",
  UNSUPPORTED_DEVICE: "Use --device cpu.",
  INTERNAL: "This is a bug of Candlewick's: please report it, with this message.",
};

/** A line, or nothing where the message itself says what to do. */
export const remedyOf = (code: ErrorCode): string | undefined => REMEDIES[code];
