//! What a template is after parsing.

/// Statements in order.
pub(super) type Body = Vec<Node>;

pub(super) struct Node {
    /// From 1, for messages.
    pub line: usize,
    pub statement: Statement,
}

pub(super) enum Statement {
    Text(String),
    Print(Expr),
    /// The conditions in order with what is done, and what is done if none holds.
    If(Vec<(Expr, Body)>, Body),
    For(Box<For>),
    Set(Target, Expr),
    /// The name, filters over it, and what is rendered into it.
    SetBlock(Target, Vec<Call>, Body),
    With(Vec<(Target, Expr)>, Body),
    /// `{% generation %}`, which marks what the assistant said, and else is a scope.
    Scope(Body),
    Filter(Vec<Call>, Body),
    Macro(Macro),
    Break,
    Continue,
}

pub(super) struct For {
    pub target: Target,
    pub items: Expr,
    pub condition: Option<Expr>,
    pub body: Body,
    pub otherwise: Body,
}

pub(super) struct Macro {
    pub name: String,
    pub parameters: Vec<(String, Option<Expr>)>,
    pub body: Body,
}

/// What is assigned to.
pub(super) enum Target {
    Name(String),
    /// An attribute of a namespace.
    Attribute(String, String),
    Tuple(Vec<Target>),
}

/// A filter or a test with its arguments.
pub(super) struct Call {
    pub name: String,
    pub arguments: Arguments,
}

#[derive(Default)]
pub(super) struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(String, Expr)>,
}

pub(super) enum Expr {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Name(String),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, String),
    Item(Box<Expr>, Box<Expr>),
    /// From, to, step.
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
    Call(Box<Expr>, Arguments),
    Filter(Box<Expr>, Call),
    /// Whether it must fail, as after `is not`.
    Test(Box<Expr>, Call, bool),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// `a < b < c`.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// `~`.
    Concatenate(Vec<Expr>),
    /// Condition, then, else.
    Choice(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}
