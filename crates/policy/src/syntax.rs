//! What is wrong with a text that is no YAML, in our own words: the reader's speak of its own insides.
//!
//! Says nothing of what the text is for: the configuration is read with the same words.

use serde_saphyr::{
    Error, ExternalMessageSource,
    granit_parser::{ErrorKind, Parser, ScanError, Tag},
};

/// A cause, and what to do.
pub type Words = (String, &'static str);

const TAGS: &str = "remove the word that begins with `!`, or put the text in quotes";
const NESTED: &str = "write it less deep: 32 lists and tables within one another are enough";

/// The first tag that is none of YAML's own core, and where it stands, as line and column: the reader passes over those of lists
/// and tables. What cannot be scanned is for whoever reads it to say.
pub(crate) fn tag(text: &str) -> Option<((u64, u64), Words)> {
    let events = Parser::new_from_str(text).map_while(Result::ok);
    let mut tagged = events.filter(|(event, _)| event.tag().is_some_and(Tag::is_custom));
    let (_, span) = tagged.next()?;
    let start = span.tag_start().unwrap_or(span.start);
    let place = (start.line() as u64, start.col() as u64 + 1);
    Some((place, ("tags have no meaning here".to_owned(), TAGS)))
}

/// Why a text could not be scanned.
pub fn syntax(fault: &ScanError) -> Words {
    use ErrorKind as Kind;
    let (what, fix) = match fault.kind() {
        Kind::TabNotAllowed | Kind::TabInBlockIndentation | Kind::TabAtBlockScalarStart | Kind::TabInPlainScalar => {
            ("a tab stands here", "indent with spaces: YAML does not allow tabs")
        }
        Kind::UnclosedQuotedScalar | Kind::DocumentIndicatorInQuotedScalar => (
            "a quote is not closed",
            "close it with the quote that it began with; a quote within such a text is written `''`, or `\\\"` between double ones",
        ),
        // Both are of texts in quotes alone. As a rule the next line was not meant to be of it.
        Kind::InvalidQuotedScalarIndent | Kind::TabInIndentation => (
            "a quote is not closed, here or above, or its text goes on without indentation",
            "close it with the quote that it began with, or indent its further lines with spaces, more than its key",
        ),
        Kind::InvalidTrailingSingleQuotedScalar | Kind::InvalidTrailingDoubleQuotedScalar => (
            "something follows a text in quotes",
            "put all of the text in quotes, or a `,` between two; a quote within such a text is written `''`, or `\\\"` between double ones",
        ),
        Kind::UnknownQuotedScalarEscape
        | Kind::InvalidQuotedScalarHexEscape
        | Kind::InvalidLowSurrogateHexEscape
        | Kind::InvalidLowSurrogate
        | Kind::MissingLowSurrogate
        | Kind::UnpairedLowSurrogate
        | Kind::InvalidUnicodeEscape => (
            "this is no escape between double quotes",
            "write `\\\\` for a backslash, or single quotes, between which it stands for itself",
        ),
        Kind::UnclosedFlowCollection { open: '{' }
        | Kind::UnexpectedEofFlowMapping
        | Kind::UnexpectedEofImplicitFlowMapping => ("a `{` is not closed", "write `}` at its end"),
        Kind::UnclosedFlowCollection { .. } | Kind::UnexpectedEofFlowSequence => {
            ("a `[` is not closed", "write `]` at its end")
        }
        Kind::ExpectedFlowMappingSeparator => {
            ("`,` or `}` is missing before this", "write `,` between two entries and `}` after the last")
        }
        Kind::ExpectedFlowSequenceSeparator => {
            ("`,` or `]` is missing before this", "write `,` between two members and `]` after the last")
        }
        Kind::MisplacedFlowCollectionEnd => ("this closes nothing", "remove it, or write what it closes"),
        Kind::MismatchedFlowCollectionEnd { open, close } => {
            return (format!("`{open}` is closed by `{close}`"), "write `[…]` for a list and `{…}` for a table");
        }
        Kind::InvalidIndentation
        | Kind::InvalidBlockScalarIndent
        | Kind::InvalidFlowScalarIndent
        | Kind::ExpectedBlockMappingKey
        | Kind::ExpectedBlockSequenceEntry
        | Kind::BlockSequenceEntryNotAllowed
        | Kind::MappingKeyNotAllowed
        | Kind::UnexpectedEofBlockMapping
        | Kind::UnexpectedEofBlockSequence => (
            "this stands neither in the table or list above nor beside it",
            "indent what belongs together alike, with spaces, and write a space after each `:` and `-`; a quote above may not be closed",
        ),
        Kind::BlockEntryInFlowCollection => {
            ("`-` stands between brackets", "write members between brackets as `[a, b]`")
        }
        Kind::SimpleKeyExpected
        | Kind::InvalidSimpleKey
        | Kind::InvalidMappingValueWhitespace
        | Kind::InvalidBlockEntryWhitespace
        | Kind::FlowMappingValueAdjacentCollection => (
            "a key without a value, or a value without a key, is near this",
            "write `name: value`, with a space after the `:`",
        ),
        Kind::MappingValueNotAllowed | Kind::InvalidColonPlacement => (
            "there can be no second `:` here",
            "write a space after the `:` of each key, begin each on a line of its own, and put a text that holds `: ` in quotes",
        ),
        Kind::UnknownAnchor => ("there is no such anchor", "put a text that begins with `*` in quotes"),
        Kind::MissingAnchorOrAliasName => {
            ("`*` and `&` are signs of YAML", "put a text that begins with one in quotes: `\"*\"`")
        }
        Kind::AnchorCountOverflow => ("there are too many anchors", "write out what they stand for"),
        Kind::UnexpectedCharacter { character } if !character.is_control() => {
            return (format!("no text begins with `{character}`"), "put it in quotes");
        }
        Kind::UnexpectedCharacter { .. } => ("a control character stands here", "remove it"),
        Kind::PlainScalarStartsWithDashFlowIndicator => ("no text begins with `-` and a bracket", "put it in quotes"),
        Kind::CommentNotSeparated | Kind::CommentInterceptedScalar => {
            ("a comment begins within a text", "put a space before `#`, or the text in quotes")
        }
        Kind::BomInsideDocument => ("an invisible sign stands here, U+FEFF", "remove it"),
        Kind::RecursionLimitExceeded => ("this is nested too deep", NESTED),
        Kind::UndeclaredTagHandle
        | Kind::ExpectedTagBang
        | Kind::InvalidTagTerminator
        | Kind::MissingTagUri
        | Kind::UnclosedVerbatimTag
        | Kind::InvalidTagEscape
        | Kind::InvalidTagUtf8LeadingByte
        | Kind::InvalidTagUtf8TrailingByte
        | Kind::InvalidTagUtf8
        | Kind::InvalidGlobalTagCharacter => ("tags have no meaning here", TAGS),
        Kind::ZeroBlockScalarIndent | Kind::InvalidBlockScalarHeader => {
            ("what follows `|` or `>` is wrong", "begin the text on the next line, or put it in quotes")
        }
        // Directives, and what only comes of texts that nobody writes by hand.
        _ => (
            "this is not YAML",
            "look for a missing space after `:`, an unclosed bracket or quote, or lines that are not indented alike",
        ),
    };
    (what.to_owned(), fix)
}

/// Why a text could not be read.
pub(crate) fn reading(error: &Error) -> Words {
    let (what, fix) = match error.without_snippet() {
        Error::ExternalMessage { source, .. } => match &**source {
            ExternalMessageSource::Parser(fault) => return syntax(fault),
            _ => ("this is not YAML", "correct the syntax"),
        },
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            return (format!("`{key}` is written twice"), "keep one of them");
        }
        Error::DuplicateMappingKey { .. } => ("a key is written twice", "keep one of them"),
        Error::MultipleDocuments { .. } => ("a second document begins here", "keep everything in one document"),
        Error::Eof { .. } => ("there is nothing in it", "write `policy: NAME` and `rules: […]`"),
        Error::UnknownAnchor { .. } => ("there is no such anchor", "put a text that begins with `*` in quotes"),
        Error::AliasError { error, .. } => return reading(error),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::RecursiveReferencesRequireWeakTypes { .. } => {
            ("aliases stand for too much", "write out what they stand for: `*name` for a text or a short list")
        }
        Error::Budget { .. } => (
            "there is too much in it, aliases counted as what they stand for, or it is nested too deep",
            "use fewer aliases, or split it into several files",
        ),
        Error::MergeValueNotMapOrSeqOfMaps { .. } | Error::MergeKeyNotAllowed { .. } => {
            ("merging tables is not supported", "repeat the keys")
        }
        Error::UnsupportedTag { .. }
        | Error::TaggedScalarCannotDeserializeIntoString { .. }
        | Error::InvalidBinaryBase64 { .. }
        | Error::BinaryNotUtf8 { .. }
        | Error::BytesNotSupportedMissingBinaryTag { .. } => ("tags have no meaning here", TAGS),
        Error::Message { msg, .. } => return (msg.clone(), "correct the syntax"),
        _ => ("this cannot be read as YAML", "correct the syntax"),
    };
    (what.to_owned(), fix)
}
