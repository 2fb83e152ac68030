//! How a checkpoint names its tensors: models ask for them by one scheme, and each architecture has names of its own.

use std::borrow::Cow;

/// One architecture's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// What the names of the body may begin with, and a dot (`transformer`, `bert`): checkpoints come with and
    /// without it.
    pub prefix: &'static str,
    /// The own name of `encoder.layer`, which a layer's number follows.
    pub layer: &'static str,
    /// Of a layer's modules: the name that is asked for, and the own.
    pub modules: &'static [(&'static str, &'static str)],
}

/// The scheme's name of the list of layers, as BERT has it.
const LAYER: &str = "encoder.layer";

impl From<&'static str> for Names {
    /// Names that are those of the scheme, but for the prefix.
    fn from(prefix: &'static str) -> Self {
        Self { prefix, layer: LAYER, modules: &[] }
    }
}

impl Names {
    /// The checkpoint's own name of what the scheme calls `name`, a tensor or a module, without the prefix. A name
    /// that the scheme does not have stays.
    pub fn own<'a>(&self, name: &'a str) -> Cow<'a, str> {
        self.renamed(name, LAYER, self.layer, |(scheme, own)| (scheme, own))
    }

    /// The scheme's name of what the checkpoint calls `name`, a tensor or a module, with the prefix or without.
    pub fn scheme<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let name = name.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
        self.renamed(name, self.layer, LAYER, |(scheme, own)| (own, scheme))
    }

    /// The name that transformers gives the tensor or module that the scheme calls `name`; `prefixed`: of a model with
    /// a head, whose body's names have the prefix.
    pub fn written(&self, name: &str, prefixed: bool) -> String {
        let own = self.own(name);
        if prefixed && Self::is_body(name) { format!("{}.{own}", self.prefix) } else { own.into_owned() }
    }

    /// Whether a name of the scheme, of a tensor or a module, is the body's, not a head's.
    pub fn is_body(name: &str) -> bool {
        let parts = ["embeddings", "embeddings_project", "encoder", "pooler", "wte", "wpe", "h", "ln_f"];
        name.split('.').next().is_some_and(|first| parts.contains(&first))
    }

    /// Whether the scheme's module `name` is an embedding.
    pub fn is_embedding(name: &str) -> bool {
        matches!(name, "wte" | "wpe") || name.ends_with("_embeddings")
    }

    /// A layer's module is renamed from the first of its pair to the second; parameters keep their last part.
    fn renamed<'a>(
        &self,
        name: &'a str,
        layer: &str,
        to: &str,
        pair: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
    ) -> Cow<'a, str> {
        let inside = name.strip_prefix(layer).and_then(|rest| rest.strip_prefix('.'));
        let Some((index, part)) = inside.and_then(|rest| rest.split_once('.')) else { return name.into() };
        if self.modules.is_empty() || !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return name.into();
        }
        let found = self.modules.iter().find_map(|names| {
            let (from, to) = pair(*names);
            let rest = part.strip_prefix(from)?;
            (rest.is_empty() || rest.starts_with('.')).then(|| format!("{to}{rest}"))
        });
        match found {
            Some(part) => format!("{to}.{index}.{part}").into(),
            None => name.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    const OWN: Names = Names {
        prefix: "distilbert",
        layer: "transformer.layer",
        modules: &[("attention.output.dense", "attention.out_lin"), ("output.dense", "ffn.lin2")],
    };

    #[test]
    fn names_go_there_and_back() {
        for (scheme, own) in [
            ("encoder.layer.0.attention.output.dense.weight", "transformer.layer.0.attention.out_lin.weight"),
            ("encoder.layer.11.output.dense.bias", "transformer.layer.11.ffn.lin2.bias"),
            ("encoder.layer.1.output.dense", "transformer.layer.1.ffn.lin2"),
            ("embeddings.LayerNorm.weight", "embeddings.LayerNorm.weight"),
        ] {
            assert_eq!(OWN.own(scheme), own);
            assert_eq!(OWN.scheme(own), scheme);
            assert_eq!(OWN.scheme(&format!("distilbert.{own}")), scheme);
        }
    }

    #[test]
    fn what_is_no_module_of_a_layer_stays() {
        for name in ["encoder.layer.0.output.denser", "encoder.layer.x.output.dense", "classifier.weight"] {
            assert_eq!(OWN.own(name), name);
        }
    }
}
