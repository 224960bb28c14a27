-- Parsed rows become numbered, de-duplicated, filtered and ordered events.
--
-- The one cleaning and ordering pipeline. It is written once, in SQL that DuckDB runs on one machine and Spark can run on a
-- cluster: plain joins, aggregates and window functions, no function or type of one engine. How files are read into
-- `parsed` is the business of each engine and is not here.
--
-- In:   parsed   (input_row, user_id, item_id, time_us, event, value, is_unreadable, reason); reason is NULL for a
--       valid row, is_unreadable where the value could not be read and is NULL
--       settings (min_user_events, min_item_events, min_value): one row
-- Out:  users, items, events: outside id and dense position; and the statement `ordered`
--
-- The engine numbers what the statements *_ids and *_left give, for Spark would do `row_number() OVER (ORDER BY id)` in one
-- task: user_codes, item_codes and event_codes; later, of what is left, users, items and events. `filling` has one row, the
-- value of events without one.
--
-- Each statement has its name in the comment line above it. `dropped` grows until nothing more is dropped; `kept` shows the rest.

-- name: user_ids
SELECT DISTINCT user_id FROM parsed WHERE reason IS NULL

-- name: item_ids
SELECT DISTINCT item_id FROM parsed WHERE reason IS NULL

-- name: event_ids
SELECT DISTINCT event FROM parsed WHERE reason IS NULL

-- name: encoded
-- Integers from here on: sorting and grouping text would cost several times more.
CREATE TABLE encoded AS
SELECT parsed.input_row, user_codes.user_code, item_codes.item_code, parsed.time_us, event_codes.event_code, parsed.value,
    parsed.is_unreadable
FROM parsed
JOIN user_codes ON parsed.user_id = user_codes.user_id
JOIN item_codes ON parsed.item_id = item_codes.item_id
JOIN event_codes ON parsed.event = event_codes.event
WHERE parsed.reason IS NULL

-- name: dropped
-- Whole events that came before: same user, item, time, behavior and value. The first of them stays. Values that
-- could not be read may differ, so that such rows are never copies.
CREATE TABLE dropped AS
SELECT input_row, 'exact duplicate' AS reason
FROM (
    SELECT
        encoded.input_row,
        row_number() OVER (PARTITION BY user_code, item_code, time_us, event_code, value ORDER BY encoded.input_row) AS copy_number
    FROM encoded
    WHERE NOT is_unreadable
) AS copies
WHERE copy_number > 1

-- name: kept
CREATE VIEW kept AS
SELECT encoded.*
FROM encoded
LEFT JOIN dropped ON encoded.input_row = dropped.input_row
WHERE dropped.input_row IS NULL

-- name: low_values
INSERT INTO dropped
SELECT input_row, 'value below min_value'
FROM kept
WHERE value < (SELECT min_value FROM settings)

-- name: consecutive_repeats
INSERT INTO dropped
SELECT input_row, 'consecutive repeat'
FROM (
    SELECT
        input_row,
        item_code,
        event_code,
        lag(item_code) OVER (PARTITION BY user_code ORDER BY time_us, input_row) AS item_before,
        lag(event_code) OVER (PARTITION BY user_code ORDER BY time_us, input_row) AS event_before
    FROM kept
) AS neighbors
WHERE item_code = item_before AND event_code = event_before

-- name: rare_users
INSERT INTO dropped
SELECT kept.input_row, 'user with too few events'
FROM kept
JOIN (
    SELECT user_code FROM kept
    GROUP BY user_code HAVING count(*) < (SELECT min_user_events FROM settings)
) AS rare ON kept.user_code = rare.user_code

-- name: rare_items
INSERT INTO dropped
SELECT kept.input_row, 'item with too few events'
FROM kept
JOIN (
    SELECT item_code FROM kept
    GROUP BY item_code HAVING count(*) < (SELECT min_item_events FROM settings)
) AS rare ON kept.item_code = rare.item_code

-- name: users_left
SELECT user_id, user_code FROM user_codes WHERE user_code IN (SELECT user_code FROM kept)

-- name: items_left
SELECT item_id, item_code FROM item_codes WHERE item_code IN (SELECT item_code FROM kept)

-- name: events_left
SELECT event, event_code FROM event_codes WHERE event_code IN (SELECT event_code FROM kept)

-- name: ordered
-- The engine orders it by user_position, time_us, input_row: ties in time keep the order of the input, so that the same file
-- always gives the same histories.
SELECT
    users.user_position,
    items.item_position,
    kept.time_us,
    events.event_position,
    coalesce(kept.value, (SELECT fill_value FROM filling)) AS value,
    kept.input_row
FROM kept
JOIN users ON kept.user_code = users.user_code
JOIN items ON kept.item_code = items.item_code
JOIN events ON kept.event_code = events.event_code
