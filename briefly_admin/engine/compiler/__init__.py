"""The compiler from a marshmallow schema to SQL: marshmallow's verdict at PostgreSQL's speed.

marshmallow judges `to_jsonb(row)`, field by field. `briefly_admin.plans.judging` says what a schema's fields and
validators are, as data (`FieldSpec`, `RuleSpec`); `conditions(spec, typed)` turns one field over one SQL expression
into `Condition`s:

    >>> (tier,) = describe(Schema.from_dict({"tier": fields.String(validate=OneOf(["free", "pro"]))})).fields
    >>> for condition in conditions(tier, Typed(sql.Identifier("t", "tier"), "text")): …
    null     (NOT ("t"."tier" IS NULL))                                exact
    one_of   (("t"."tier" COLLATE "C") IN ('free', 'pro'))             exact

**Three ways to be decided.** Each condition is one of these (`coverage` tells which, in words):
- *exact*: SQL decides as marshmallow does, both ways; Python never sees the value;
- *sound*: SQL takes only what marshmallow surely takes (a day from 1 to 28, an e-mail address in ASCII); whatever it
  does not take is fetched, and `judge` decides. Where a type is sound only, its rules are part of that one condition;
- *left to Python*: the test is never TRUE, `judge` decides every value, and `why` says what SQL cannot know (a
  function of the plan, a regular expression that PostgreSQL has not, a format that only strptime reads …).

**The contract of a Condition.** `test` is TRUE where the value passes, FALSE where it fails, NULL where it does not
apply: an earlier condition of the field failed, or the value is null (then `null` says so). It raises no error for any
value: casts stand behind a CASE that knows the text's form. `fails` is never NULL. A FALSE is final without a `judge`,
and a question with one. A field that breaks over a value (raises anything) does not take it.

**How a value is seen** (views.py). A type of pg_catalog whose JSON is known by its type alone stays native: an int4's
JSON is an integer, a uuid's a string of one form, a timestamptz's an ISO text but for ±infinity, BC and years above
9999. Any other (arrays, enums, domains of them, composites) is seen as `to_jsonb(value)` and compiled by what
`jsonb_typeof` says of it. A `json` is seen as jsonb; a text of one that jsonb cannot hold counts as a JSON string.

**What stands where.** `views`: values and their JSON types · `kinds`, `moments`: types of single values · `forms`,
`urls`: how they are usually written · `shapes`: lists, objects, nested schemas, and what is within them · `values`,
`rules`: validators, over what Python makes of a value · `patterns`: regular expressions · `literals`: a plan's choices
and bounds · `answers`: how parts are put together · `conditions`: the whole · `coverage`: all of it in words.

**Missing and null.** A column that the database lacks is NULL, unless its field has a `load_default`: then nothing is
asked. JSON null is null. A schema with hooks (validates, validates_schema, pre_load, post_load) judges whole rows.
"""

from briefly_admin.engine.compiler.conditions import Condition, conditions
from briefly_admin.engine.compiler.coverage import RuleCoverage, coverage
from briefly_admin.engine.compiler.views import Typed, readable

__all__ = ["Condition", "RuleCoverage", "Typed", "conditions", "coverage", "readable"]
