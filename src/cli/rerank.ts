// `candlewick rerank`: documents by how well they answer a query.
import type { Command } from "commander";
import { loadOptions, number } from "./arguments.js";
import { openInput, textOf } from "./input.js";
import { library } from "./library.js";
import { callOptions, modelOf, output, withRowOptions, type RowArguments } from "./rows.js";

interface Arguments extends RowArguments {
  query: string;
  topK?: number;
}

export function addRerank(program: Command): void {
  const command = program
    .command("rerank")
    .summary("documents by how well they answer a query")
    .description("Reads documents, one a line, and writes the best first: score, number among the documents, and the document.")
    .argument("[document...]", "documents, if they are not read from files or standard input")
    .requiredOption("-q, --query <text>", "what is looked for")
    .option("-k, --top-k <n>", "how many documents (default: all)", number)
    .addHelpText("after", '\nFor instance: candlewick rerank -q "how to reset a password" -f faq.txt -k 3');
  withRowOptions(command, "rerank").action(rerank);
}

async function rerank(texts: string[], options: Arguments): Promise<void> {
  const input = await openInput(texts, options);
  const documents: string[] = [];
  for await (const row of input.rows()) documents.push(textOf(row));
  await using model = await library().loadBERT(modelOf(options, "rerank"), loadOptions(options));
  const ranked = await model.rerank({ query: options.query, documents }, { ...callOptions(options), topK: options.topK });
  const out = output(options);
  try {
    for (const { index, score, document, method } of ranked) {
      await out.row(options.json ? JSON.stringify({ index, score, document, method }) : [score.toFixed(4), index, document].join("\t"));
    }
  } finally {
    await out.end();
  }
}
