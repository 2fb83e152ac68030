//! An adapter over a base: whether the base has all that the configuration and the file of weights say, and what a
//! tensor of the base becomes.

use std::collections::{BTreeMap, BTreeSet};

use candlewick_kernels::Layout;
use serde_json::Value;

use crate::files::adapter::{Adapter, LoraWeights, Tie, kind_of, names_of};
use crate::files::checkpoint::Checkpoint;
use crate::files::delta::{Change, Delta};
use crate::files::names::Names;
use crate::files::targets::Kind;
use crate::files::tensors::StoredTensor;
use crate::{ModelError, Result};

/// Modules that a base may lack, or have where the adapter's model has not: heads and poolers.
const HEADS: [&str; 9] = [
    "classifier.",
    "qa_outputs.",
    "cls.",
    "pooler.",
    "lm_head.",
    "pre_classifier.",
    "vocab_",
    "generator_",
    "score.",
];

fn is_head(name: &str) -> bool {
    HEADS.iter().any(|head| name.starts_with(head))
}

impl Adapter {
    /// Decides about a head that `config`, the base's, ties to the embedding: a LoRA of either, or one that is held
    /// whole, is not the other's, so that the head gets a matrix of its own.
    ///
    /// # Errors
    /// `UnsupportedModel` where PEFT changes both, by an order of its own.
    pub(crate) fn untie(&mut self, config: &mut serde_json::Map<String, Value>) -> Result<()> {
        let class = config.get("architectures").and_then(|names| names[0].as_str()).unwrap_or_default();
        let masked = self.encoder.is_some_and(|encoder| class == encoder.class_for("MaskedLM"));
        let embedding = self.embedding();
        let head = self.encoder.map_or("lm_head", |encoder| encoder.masked_lm.decoder);
        let tied = (self.encoder.is_none() || masked)
            && config.get("tie_word_embeddings") != Some(&Value::Bool(false));
        let whole = |module: &str| self.whole.contains_key(&format!("{module}.weight"));
        let held = |module: &str| whole(module) && self.is_saved(module);
        let lora = |module: &str| self.modules.contains_key(module);
        if self.settings.ensure_weight_tying
            && (self.rows.is_some() || [embedding, head].iter().any(|module| whole(module) || lora(module)))
        {
            return Err(self.unsupported("ensure_weight_tying".into()));
        }
        if !tied {
            return Ok(());
        }
        if whole(head) && !held(head) && !whole(embedding) {
            let reason =
                format!("{head}.weight, which the base ties to {embedding}, without modules_to_save");
            return Err(self.unsupported(reason));
        }
        let own = held(embedding) || lora(embedding) || lora(head);
        // PEFT's forward pass gives a tied masked-LM head without its bias.
        if self.rows.is_some() && (own || whole(head) || masked) {
            let reason = "trainable_token_indices with a tied head of the adapter's own, or of a masked LM";
            return Err(self.unsupported(reason.into()));
        }
        if whole(head) || own {
            config.insert("tie_word_embeddings".into(), false.into());
        }
        if own && !whole(head) {
            let replaces = !held(embedding);
            let embedding =
                if self.encoder.is_some() { "embeddings.word_embeddings.weight" } else { "wte.weight" };
            self.tie = Some(Tie { head: format!("{head}.weight"), embedding, replaces });
        }
        Ok(())
    }

    /// Where the head `name`, which is not tied any more, begins; and whether the adapter's own tensor of that name
    /// counts.
    pub(crate) fn untied(&self, name: &str) -> Option<(&'static str, bool)> {
        self.tie.as_ref().filter(|tie| tie.head == name).map(|tie| (tie.embedding, tie.replaces))
    }

    /// Names of the tensors that a model has with the adapter, whether its base has them or not.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.whole().map(str::to_string).chain(self.tie.iter().map(|tie| tie.head.clone()))
    }

    /// What becomes of `base`, the tensor `name` before the adapter.
    pub(crate) fn change<'a>(
        &'a self,
        name: &str,
        base: &Checkpoint,
        tensor: &StoredTensor<'_>,
    ) -> Result<Option<Change<'a>>> {
        if let Some(rows) = self.rows.as_ref().filter(|rows| rows.name == name) {
            let (columns, values) = (rows.width, &rows.values[..]);
            return Ok(Some(Change::Rows { places: &rows.places, values, columns }));
        }
        if let Some(lora) = name.strip_suffix(".bias").and_then(|module| self.modules.get(module)) {
            return Ok(lora.bias.as_deref().map(|values| Change::Bias { values, scale: lora.scale }));
        }
        let module = name.strip_suffix(".weight").and_then(|module| self.modules.get_key_value(module));
        let Some((module, lora)) = module else { return Ok(None) };
        Delta::new(lora, layout(base, module, lora), tensor).map(|delta| Some(Change::Delta(delta)))
    }

    /// Whether `modules_to_save` names the module: as PEFT, by the end of its name, or of one that it is inside of.
    fn is_saved(&self, module: &str) -> bool {
        let saved = self.settings.modules_to_save.as_deref().unwrap_or_default();
        let full = self.full(module);
        let mut ends = full.match_indices('.').map(|(at, _)| at).chain([full.len()]);
        ends.any(|end| saved.iter().any(|name| full[..end].ends_with(name.as_str())))
    }

    /// A module's name as PEFT sees it.
    fn full(&self, module: &str) -> String {
        names_of(self.encoder).written(module, self.prefixed)
    }

    /// Whether the base has all that this changes, in the shapes that it changes, and this all that its configuration
    /// says of the base.
    pub(crate) fn check(&self, base: &Checkpoint) -> Result<()> {
        self.check_names(base)?;
        let of = |name: &str| format!("{name}, which the adapter {} changes,", self.folder.display());
        let shape = |name: &str| {
            let (name, own) = self.untied(name).unwrap_or((name, true));
            let replaced = self.whole.get(name).filter(|_| own).and_then(|own| self.weights.shape(own));
            replaced.or_else(|| base.shape(name))
        };
        for (module, lora) in &self.modules {
            let name = format!("{module}.weight");
            let found = shape(&name).ok_or_else(|| ModelError::MissingTensor(of(&name)))?;
            if lora.is_embedding != Names::is_embedding(module) {
                return Err(self.unsupported(format!("a LoRA of another kind of layer than {module} is")));
            }
            let expected = match layout(base, module, lora) {
                Layout::OutIn => vec![lora.output, lora.input],
                Layout::InOut => vec![lora.input, lora.output],
            };
            if found != expected {
                return Err(ModelError::TensorShape { name: of(&name), expected, found });
            }
            if lora.bias.is_some() && shape(&format!("{module}.bias")).is_none() {
                return Err(self.unsupported(format!("lora_bias of {module}, which has no bias")));
            }
        }
        if let Some(rows) = &self.rows {
            let found = shape(&rows.name).ok_or_else(|| ModelError::MissingTensor(of(&rows.name)))?;
            let most = rows.places.keys().next_back().copied().unwrap_or(0);
            if found.len() != 2 || found[1] != rows.width || found[0] <= most {
                let expected = vec![found.first().copied().unwrap_or(0).max(most + 1), rows.width];
                return Err(ModelError::TensorShape { name: of(&rows.name), expected, found });
            }
        }
        match self.whole().find(|name| !base.contains(name) && !is_head(name)) {
            Some(name) => Err(ModelError::MissingTensor(of(name))),
            None => Ok(()),
        }
    }

    /// Whether the file holds what the configuration says of the base's modules. (PEFT begins what is missing anew,
    /// with a warning.)
    pub(crate) fn check_names(&self, base: &Checkpoint) -> Result<()> {
        let parameters: BTreeSet<String> =
            base.names().iter().map(|name| base.plain_name(name)).filter(|name| is_parameter(name)).collect();
        let saved = self.settings.modules_to_save.as_deref().unwrap_or_default();
        let mut any = saved.is_empty();
        let mut modules: BTreeMap<&str, Kind> = BTreeMap::new();
        for name in &parameters {
            let (module, parameter) = name.rsplit_once('.').unwrap_or((name, ""));
            let matrix = parameter == "weight" && base.shape(name).is_some_and(|shape| shape.len() == 2);
            let kind = match matrix {
                false => Kind::Other,
                true if Names::is_embedding(module) => Kind::Embedding,
                true => kind_of(module, &self.settings, self.encoder),
            };
            let known = modules.entry(module).or_insert(kind);
            if matrix {
                *known = kind;
            }
            for (end, _) in module.match_indices('.') {
                modules.entry(&module[..end]).or_insert(Kind::Other);
            }
            if self.is_saved(module) && !is_head(name) && !self.whole.contains_key(name) {
                return Err(self.missing(&format!("{name}, which modules_to_save names,")));
            }
        }
        any |= self.whole().any(|name| self.is_saved(name));
        if !any {
            return Err(self.missing(&format!("any of {saved:?}, which modules_to_save names,")));
        }
        for (module, kind) in modules {
            let full = self.full(module);
            if self.modules.contains_key(module) || self.targets.refusal(&full, kind).is_some() {
                continue;
            }
            // The adapter's model may have no such head.
            if is_head(&format!("{module}.")) || module == "cls" {
                continue;
            }
            if kind == Kind::Other {
                let reason = format!("target_modules names {full}, which no LoRA can be over");
                return Err(self.contradicts(reason));
            }
            return Err(self.missing(&format!("lora_A of {full}, which target_modules names,")));
        }
        Ok(())
    }
}

/// How the base has the matrix of a module: (vocabulary, width) of an embedding is (in, out).
fn layout(base: &Checkpoint, module: &str, lora: &LoraWeights) -> Layout {
    if lora.is_embedding { Layout::InOut } else { base.layout_of(module) }
}

/// Not a mask or a table of positions, which older checkpoints hold.
fn is_parameter(name: &str) -> bool {
    name.ends_with(".weight") || name.ends_with(".bias")
}
