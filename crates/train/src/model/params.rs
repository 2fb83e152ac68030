//! A model's weights with their gradients and moments.

use candlewick_kernels::train::{Floats, Start};

/// A parameter's place in [`Params`].
pub type Id = usize;

pub struct Param {
    /// As in the checkpoint, without the model's prefix.
    pub name: String,
    pub shape: Vec<usize>,
    pub value: Floats,
    /// Empty while the parameter is frozen.
    pub gradient: Floats,
    /// Adam's moments; empty before the first step.
    pub first_moment: Floats,
    pub second_moment: Floats,
    pub trainable: bool,
    /// Weight decay applies: matrices and embeddings, not biases and norms.
    pub decays: bool,
    /// The gradient still holds the previous step's values: the first layer that writes overwrites them.
    stale: bool,
}

impl Param {
    pub fn new(name: impl Into<String>, shape: &[usize], value: Floats) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            value,
            gradient: Floats::default(),
            first_moment: Floats::default(),
            second_moment: Floats::default(),
            trainable: true,
            decays: shape.len() > 1,
            stale: true,
        }
    }

    /// The value, the gradient, and whether a product adds to that or sets it; `None` for a frozen parameter.
    pub fn gradient(&mut self) -> Option<(&[f32], &mut [f32], Start)> {
        if !self.trainable {
            return None;
        }
        if self.gradient.len() != self.value.len() {
            self.gradient = Floats::zeroed(self.value.len());
        }
        let start = if std::mem::take(&mut self.stale) { Start::Zero } else { Start::Add };
        Some((&self.value, &mut self.gradient, start))
    }

    /// As `gradient`, for layers that can only add: it is zeroed first if no layer has written in this step.
    pub fn gradient_to_add(&mut self) -> Option<&mut [f32]> {
        let (_, gradient, start) = self.gradient()?;
        if start == Start::Zero {
            gradient.fill(0.0);
        }
        Some(gradient)
    }

    /// The gradient after the backward pass: zeros if no layer wrote to it.
    pub fn gradient_to_read(&mut self) -> &[f32] {
        self.gradient_to_add();
        &self.gradient
    }
}

#[derive(Default)]
pub struct Params {
    pub all: Vec<Param>,
}

impl Params {
    pub fn push(&mut self, param: Param) -> Id {
        self.all.push(param);
        self.all.len() - 1
    }

    pub fn value(&self, id: Id) -> &[f32] {
        &self.all[id].value
    }

    pub fn find(&self, name: &str) -> Option<&Param> {
        self.all.iter().find(|param| param.name == name)
    }

    /// Whether a parameter is inside the module `name`.
    pub fn has_module(&self, name: &str) -> bool {
        let inside = |param: &Param| param.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        self.all.iter().any(inside)
    }

    pub fn trainable(&mut self) -> impl Iterator<Item = &mut Param> {
        self.all.iter_mut().filter(|param| param.trainable)
    }

    /// Marks every gradient as stale: the next write replaces it.
    pub fn forget_gradients(&mut self) {
        self.all.iter_mut().for_each(|param| param.stale = true);
    }
}

impl std::ops::Index<Id> for Params {
    type Output = Param;
    fn index(&self, id: Id) -> &Param {
        &self.all[id]
    }
}

impl std::ops::IndexMut<Id> for Params {
    fn index_mut(&mut self, id: Id) -> &mut Param {
        &mut self.all[id]
    }
}
