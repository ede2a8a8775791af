//! What a request brings to prove who sent it, read and not yet judged.

use crate::{
    AuthFault,
    key::{self, Shape},
};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use std::fmt;

/// What a request brought to prove who sent it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing.
    None,
    /// The text after `Authorization: Bearer`: a key or a token.
    Bearer(&'a str),
    /// The text of `X-Api-Key`: a key only.
    ApiKey(&'a str),
}

impl<'a> Credential<'a> {
    /// Reads the one credential of a request. SECURITY: two of them are refused, not chosen from.
    pub fn of(headers: &'a HeaderMap) -> Result<Self, AuthFault> {
        const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
        let bearer = single(headers, &AUTHORIZATION)?;
        let key = single(headers, &API_KEY)?;
        match (bearer, key) {
            (None, None) => Ok(Self::None),
            (Some(_), Some(_)) => Err(AuthFault::Malformed("more than one credential was sent")),
            (None, Some(key)) => Ok(Self::ApiKey(key.trim_matches([' ', '\t']))),
            (Some(header), None) => {
                let (scheme, rest) = header
                    .split_once(' ')
                    .ok_or(AuthFault::Malformed("the Authorization header holds no Bearer token"))?;
                if !scheme.eq_ignore_ascii_case("Bearer") {
                    return Err(AuthFault::Malformed("the Authorization scheme is not Bearer"));
                }
                Ok(Self::Bearer(rest.trim_matches([' ', '\t'])))
            }
        }
    }
}

impl Credential<'_> {
    /// Whether a signature must be checked to judge it. Anything else costs one digest at most.
    pub fn is_token(self) -> bool {
        match self {
            Self::None | Self::ApiKey(_) => false,
            Self::Bearer(text) => matches!(key::recognise(text), Shape::Other),
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer([redacted])",
            Self::ApiKey(_) => "ApiKey([redacted])",
        })
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, AuthFault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthFault::Malformed("more than one credential was sent"));
    }
    let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.is_ascii());
    text.map(Some).ok_or(AuthFault::Malformed("the credential is not ASCII text"))
}
