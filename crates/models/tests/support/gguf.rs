//! Writes small GGUF files, good ones and others: a GPT-2 of width 4 with one layer, and whatever metadata.

use std::path::Path;

/// A metadata value, or its bytes as they are.
#[derive(Clone)]
pub enum Value {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(u8),
    Text(&'static str),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

#[derive(Clone)]
pub struct GgufFile {
    pub pairs: Vec<(String, Value)>,
    /// Name, sizes (innermost first), type's number, bytes.
    pub tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.bytes());
}

impl GgufFile {
    /// `vocab` rows; no tokenizer.
    pub fn gpt2(vocab: u64) -> Self {
        let mut file = Self { pairs: Vec::new(), tensors: Vec::new() };
        file.set("general.architecture", Value::Text("gpt2"));
        let sizes = [("context_length", 16), ("embedding_length", 4), ("block_count", 1)];
        for (key, size) in sizes.into_iter().chain([("feed_forward_length", 8), ("attention.head_count", 2)])
        {
            file.set(&format!("gpt2.{key}"), Value::U32(size));
        }
        file.set("gpt2.attention.layer_norm_epsilon", Value::F32(1e-5));
        file.tensor("token_embd.weight", &[4, vocab]);
        file.tensor("position_embd.weight", &[4, 16]);
        for (name, sizes) in [
            ("attn_norm", [4, 0]),
            ("attn_qkv", [4, 12]),
            ("attn_output", [4, 4]),
            ("ffn_norm", [4, 0]),
            ("ffn_up", [4, 8]),
            ("ffn_down", [8, 4]),
        ] {
            let output = if sizes[1] == 0 { sizes[0] } else { sizes[1] };
            let sizes = &sizes[..if sizes[1] == 0 { 1 } else { 2 }];
            file.tensor(&format!("blk.0.{name}.weight"), sizes);
            file.tensor(&format!("blk.0.{name}.bias"), &[output]);
        }
        file.tensor("output_norm.weight", &[4]);
        file.tensor("output_norm.bias", &[4]);
        file
    }

    /// The 256 bytes, a few merges, and `added` tokens with their types; the first of them begins and ends a text.
    pub fn with_tokenizer(added: &[(&str, i32)]) -> Self {
        // GPT-2's alphabet: printable Latin-1 for itself, the others from U+0100 on.
        let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let others = (0..=0xffu32).filter(|b| !printable(*b)).count() as u32;
        let codes = (0..=0xffu32).filter(|b| printable(*b)).chain(0x100..0x100 + others);
        let mut tokens: Vec<String> = codes.map(|code| char::from_u32(code).unwrap().to_string()).collect();
        tokens.extend(["he", "ll", "hell", "hello"].map(str::to_string));
        let mut types = vec![1; tokens.len()];
        let end = tokens.len() as u32;
        for (token, kind) in added {
            tokens.push(token.to_string());
            types.push(*kind);
        }
        let mut file = Self::gpt2(tokens.len() as u64);
        file.set("tokenizer.ggml.model", Value::Text("gpt2"));
        file.set("tokenizer.ggml.pre", Value::Text("gpt-2"));
        file.set("tokenizer.ggml.tokens", Value::Texts(tokens));
        file.set("tokenizer.ggml.token_type", Value::I32s(types));
        let merges = ["h e", "l l", "he ll", "hell o"].map(str::to_string);
        file.set("tokenizer.ggml.merges", Value::Texts(merges.to_vec()));
        file.set("tokenizer.ggml.bos_token_id", Value::U32(end));
        file.set("tokenizer.ggml.eos_token_id", Value::U32(end));
        file
    }

    /// Sets `key`, where it is or at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.pairs.iter_mut().find(|(other, _)| other == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key.to_string(), value)),
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.pairs.retain(|(other, _)| other != key);
    }

    /// A tensor of f32 values that are no zeros.
    pub fn tensor(&mut self, name: &str, sizes: &[u64]) {
        let count = sizes.iter().product::<u64>();
        let values = (0..count).flat_map(|i| (((i * 7 + 3) % 11) as f32 / 11.0 - 0.4).to_le_bytes());
        self.tensors.push((name.into(), sizes.to_vec(), 0, values.collect()));
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            text(&mut out, key);
            put(&mut out, value);
        }
        let mut offset = 0;
        for (name, sizes, kind, bytes) in &self.tensors {
            text(&mut out, name);
            out.extend((sizes.len() as u32).to_le_bytes());
            sizes.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += bytes.len().next_multiple_of(32);
        }
        for (_, _, _, bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    let mut kind = |code: u32| out.extend(code.to_le_bytes());
    let array = |out: &mut Vec<u8>, code: u32, count: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(code.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match value {
        Value::U32(value) => (kind(4), out.extend(value.to_le_bytes())).1,
        Value::I32(value) => (kind(5), out.extend(value.to_le_bytes())).1,
        Value::F32(value) => (kind(6), out.extend(value.to_le_bytes())).1,
        Value::Bool(value) => (kind(7), out.push(*value)).1,
        Value::Text(value) => (kind(8), text(out, value)).1,
        Value::Texts(texts) => {
            array(out, 8, texts.len());
            texts.iter().for_each(|item| text(out, item));
        }
        Value::I32s(items) => {
            array(out, 5, items.len());
            items.iter().for_each(|item| out.extend(item.to_le_bytes()));
        }
        Value::F32s(items) => {
            array(out, 6, items.len());
            items.iter().for_each(|item| out.extend(item.to_le_bytes()));
        }
    }
}
