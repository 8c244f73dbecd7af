//! Admin tokens: kept as hashes, rotated with an overlap, ended for ever.

use async_trait::async_trait;
use mstore_protocol::{Code, MerchantId, Timestamp, limits::PAGE_ROWS_MAX};

use super::{Carrier, Size, Work, audit, locks};
use crate::{
    Act, AdminRole, AdminTokens, By, FileToken, NewToken, Presented, StoreError, TokenChange, TokenHash, TokenRecord,
    sql::{Row, Sql, args, damaged},
};

macro_rules! token {
    ($condition:literal) => {
        concat!(
            "SELECT name, role, merchant_id, created_at, rotated_at, expires_at, revoked_at, old_until, hash, previous_hash FROM admin_token WHERE ",
            $condition
        )
    };
}

#[async_trait]
impl<S: Carrier> AdminTokens for S {
    async fn add_token(&self, token: NewToken, by: &By) -> Result<TokenRecord, StoreError> {
        let by = by.clone();
        self.carry(Size::Small, move |work| add(work, &token, &by), |record, _| record).await
    }

    async fn presented(&self, hash: TokenHash, now: Timestamp) -> Result<Option<(TokenRecord, Presented)>, StoreError> {
        self.read(move |db| presented(db, hash, now)).await
    }

    async fn tokens(&self, of: Option<&MerchantId>) -> Result<Vec<TokenRecord>, StoreError> {
        let of = of.map(ToString::to_string);
        let sql = token!("(CAST(?1 AS TEXT) IS NULL OR merchant_id = ?1) ORDER BY name LIMIT ?2");
        self.read(move |db| db.rows(sql, args![of, PAGE_ROWS_MAX], |row| Ok(kept(row)?.record))).await
    }

    async fn change_token(&self, name: &str, change: TokenChange, by: &By) -> Result<TokenRecord, StoreError> {
        let (name, by) = (name.to_owned(), by.clone());
        self.carry(Size::Small, move |work| alter(work, &name, &change, &by), |record, _| record).await
    }

    async fn keep_file_token(&self, name: &str, hash: TokenHash) -> Result<FileToken, StoreError> {
        let named = name.to_owned();
        // Most starts change nothing, and must be possible on a full disk.
        if self.read(move |db| Ok(known(db, &named)?.is_some_and(|token| token.holds(&hash)))).await? {
            return self.read(move |db| Ok(if is_ended(db, hash)? { FileToken::Ended } else { FileToken::Kept })).await;
        }
        let name = name.to_owned();
        self.carry(Size::Small, move |work| take_file_token(work, &name, hash), |kept, _| kept).await
    }
}

/// A token with its hashes.
struct Kept {
    record: TokenRecord,
    hash: TokenHash,
    previous: Option<TokenHash>,
}

impl Kept {
    fn holds(&self, hash: &TokenHash) -> bool {
        self.hash == *hash || self.previous == Some(*hash)
    }
}

fn kept(row: &Row<'_>) -> Result<Kept, StoreError> {
    let merchant = row.optional_text(2)?.map(MerchantId::parse).transpose().map_err(|error| damaged("a token's merchant", error))?;
    let hash = |bytes: &[u8]| TokenHash::try_from(bytes).map_err(|error| damaged("a token's hash", error));
    let previous = if row.cell(9) == crate::sql::Cell::Null { None } else { Some(hash(row.bytes(9)?)?) };
    let record = TokenRecord {
        name: row.string(0)?,
        role: AdminRole::parse(row.text(1)?).ok_or_else(|| damaged("a token's role", "none of ours"))?,
        merchant,
        created_at: row.time(3)?,
        rotated_at: row.optional_time(4)?,
        expires_at: row.optional_time(5)?,
        revoked_at: row.optional_time(6)?,
        rotating: previous.is_some(),
        old_until: row.optional_time(7)?,
    };
    Ok(Kept { record, hash: hash(row.bytes(8)?)?, previous })
}

fn known(db: &dyn Sql, name: &str) -> Result<Option<Kept>, StoreError> {
    db.row(token!("name = ?1"), args![name], kept)
}

fn by_hash(db: &dyn Sql, hash: TokenHash) -> Result<Option<Kept>, StoreError> {
    db.row(token!("hash = ?1 OR previous_hash = ?1"), args![hash], kept)
}

fn presented(db: &dyn Sql, hash: TokenHash, now: Timestamp) -> Result<Option<(TokenRecord, Presented)>, StoreError> {
    let Some(token) = by_hash(db, hash)?.filter(|token| token.record.revoked_at.is_none()) else { return Ok(None) };
    let record = token.record;
    let is_old = token.hash != hash;
    let has_ended = |until: Option<Timestamp>| until.is_some_and(|until| until <= now);
    let how = if is_old && has_ended(record.old_until) {
        return Ok(None);
    } else if has_ended(record.expires_at) {
        Presented::Expired
    } else if is_old {
        Presented::Old
    } else if record.rotating && record.old_until.is_none() {
        Presented::FirstUse
    } else {
        Presented::Current
    };
    Ok(Some((record, how)))
}

fn is_ended(db: &dyn Sql, hash: TokenHash) -> Result<bool, StoreError> {
    let sql =
        "SELECT 1 FROM admin_token_ended WHERE hash = ?1 UNION ALL SELECT 1 FROM admin_token WHERE hash = ?1 AND revoked_at IS NOT NULL";
    db.exists(sql, args![hash])
}

fn end(work: &Work<'_>, name: &str, hash: TokenHash) -> Result<(), StoreError> {
    let sql = "INSERT INTO admin_token_ended (hash, name, ended_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    work.sql.execute(sql, args![hash, name, work.now.to_string()])?;
    Ok(())
}

fn existing(db: &dyn Sql, name: &str) -> Result<Kept, StoreError> {
    known(db, name)?.ok_or_else(|| StoreError::refused(Code::NotFound, format!("no admin token {name}")))
}

fn insert(work: &Work<'_>, token: &NewToken) -> Result<(), StoreError> {
    let sql = "INSERT INTO admin_token (name, role, merchant_id, hash, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (merchant, expires_at) = (token.merchant.as_ref().map(MerchantId::as_str), token.expires_at.map(|at| at.to_string()));
    work.sql.execute(sql, args![token.name, token.role.as_str(), merchant, token.hash, work.now.to_string(), expires_at])?;
    Ok(())
}

fn act(action: &'static str, record: &TokenRecord, detail: String) -> Act {
    let merchant = record.merchant.as_ref().map(ToString::to_string);
    Act { action, merchant, subject: Some(record.name.clone()), detail, ..Act::default() }
}

fn add(work: &mut Work<'_>, token: &NewToken, by: &By) -> Result<TokenRecord, StoreError> {
    locks::admin_tokens(work)?;
    if known(work.sql, &token.name)?.is_some() {
        return Err(StoreError::refused(Code::AlreadyExists, format!("there is an admin token {}; choose another name", token.name)));
    }
    if let Some(merchant) = &token.merchant
        && !work.sql.exists("SELECT 1 FROM merchant WHERE merchant_id = ?1", args![merchant.as_str()])?
    {
        return Err(StoreError::refused(Code::NotFound, format!("no merchant {merchant}")));
    }
    insert(work, token)?;
    let record = existing(work.sql, &token.name)?.record;
    let until = record.expires_at.map_or_else(|| "without end".to_owned(), |at| format!("until {at}"));
    audit::write(work, &act("token.added", &record, format!("{}, {until}", record.role.as_str())), by)?;
    Ok(record)
}

fn alter(work: &mut Work<'_>, name: &str, change: &TokenChange, by: &By) -> Result<TokenRecord, StoreError> {
    locks::admin_tokens(work)?;
    let token = existing(work.sql, name)?;
    let now = work.now.to_string();
    match change {
        TokenChange::Rotate { .. } if token.record.revoked_at.is_some() => {
            return Err(StoreError::refused(Code::Conflict, format!("the admin token {name} was revoked; add another one")));
        }
        TokenChange::Rotate { hash, old_until } => {
            rotate(work, &token, *hash, *old_until)?;
            let until = old_until.map_or_else(|| "at the first use of the new one".to_owned(), |at| format!("at {at}"));
            audit::write(work, &act("token.rotated", &token.record, format!("the old one ends {until}")), by)?;
        }
        TokenChange::RetireOld => {
            work.sql.execute("UPDATE admin_token SET previous_hash = NULL WHERE name = ?1 AND old_until IS NULL", args![name])?;
            if let Some(previous) = token.previous.filter(|_| token.record.old_until.is_none()) {
                end(work, name, previous)?;
            }
        }
        TokenChange::Revoke if token.record.revoked_at.is_some() => {}
        TokenChange::Revoke => {
            keep_one_platform_token(work, &token.record)?;
            let sql = "UPDATE admin_token SET revoked_at = ?2, previous_hash = NULL, old_until = NULL WHERE name = ?1";
            work.sql.execute(sql, args![name, now])?;
            for hash in token.previous.into_iter().chain([token.hash]) {
                end(work, name, hash)?;
            }
            audit::write(work, &act("token.revoked", &token.record, String::new()), by)?;
        }
    }
    Ok(existing(work.sql, name)?.record)
}

/// A second rotation before the first was used keeps the text that people really have.
fn rotate(work: &Work<'_>, token: &Kept, hash: TokenHash, old_until: Option<Timestamp>) -> Result<(), StoreError> {
    let name = &token.record.name;
    let is_unused = token.previous.is_some() && token.record.old_until.is_none();
    let (stays, ends) = if is_unused { (token.previous, Some(token.hash)) } else { (Some(token.hash), token.previous) };
    let sql = "UPDATE admin_token SET hash = ?2, previous_hash = ?3, old_until = ?4, rotated_at = ?5 WHERE name = ?1";
    work.sql.execute(sql, args![name, hash, stays, old_until.map(|at| at.to_string()), work.now.to_string()])?;
    ends.map_or(Ok(()), |hash| end(work, name, hash))
}

/// Somebody must be left who can make tokens.
fn keep_one_platform_token(work: &Work<'_>, going: &TokenRecord) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM admin_token WHERE role = 'platform' AND revoked_at IS NULL AND expires_at IS NULL AND name <> ?1";
    if going.role != AdminRole::Platform || going.expires_at.is_some() || work.sql.exists(sql, args![going.name])? {
        return Ok(());
    }
    Err(StoreError::refused(
        Code::Conflict,
        format!("{} is the last platform token that does not expire; add another one first", going.name),
    ))
}

fn take_file_token(work: &mut Work<'_>, name: &str, hash: TokenHash) -> Result<FileToken, StoreError> {
    locks::admin_tokens(work)?;
    if is_ended(work.sql, hash)? {
        return Ok(FileToken::Ended);
    }
    // Whoever put a token of another name into the file has what that one may do, and no more.
    if by_hash(work.sql, hash)?.is_some() {
        return Ok(FileToken::Kept);
    }
    let Some(token) = known(work.sql, name)? else {
        insert(work, &NewToken { name: name.to_owned(), role: AdminRole::Platform, merchant: None, hash, expires_at: None })?;
        let record = existing(work.sql, name)?.record;
        audit::write(work, &act("token.added", &record, "platform, without end, from the server's own file".into()), &By::server())?;
        return Ok(FileToken::Kept);
    };
    for old in token.previous.into_iter().chain([token.hash]) {
        end(work, name, old)?;
    }
    let sql = "UPDATE admin_token SET role = 'platform', merchant_id = NULL, hash = ?2, previous_hash = NULL, old_until = NULL, expires_at = NULL,
        revoked_at = NULL, rotated_at = ?3 WHERE name = ?1";
    work.sql.execute(sql, args![name, hash, work.now.to_string()])?;
    audit::write(work, &act("token.rotated", &token.record, "the server's own file holds another one".into()), &By::server())?;
    Ok(FileToken::Replaced)
}
