-- A table with a column of every kind of type that is not PostgreSQL's own, and rows that need every kind of quotes.
CREATE SCHEMA "Odd, schema";
CREATE TYPE "Odd, schema"."my ""enum""" AS ENUM ('a', 'b c', 'd"e', '', 'NULL');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN deep AS positive;
CREATE DOMAIN many AS positive[];
CREATE DOMAIN flag AS boolean;
CREATE DOMAIN document AS jsonb;
CREATE TYPE pair AS (n integer, "odd "" name" text, at timestamptz, gone date, ok boolean, doc jsonb);
ALTER TYPE pair DROP ATTRIBUTE gone;
CREATE TYPE nest AS (p pair, ps pair[], e "Odd, schema"."my ""enum""", d positive, r numrange, b bytea);
CREATE TYPE plain AS (n integer, t text, f float8[], b box[]);
CREATE TYPE nothing AS ();
CREATE TYPE text_range AS RANGE (subtype = text, multirange_type_name = texts);
CREATE TYPE float_range AS RANGE (subtype = float8);
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE EXTENSION ltree;
CREATE EXTENSION isn;
CREATE TABLE of_row (a integer, b text);
CREATE TABLE of_all (
  "e e" "Odd, schema"."my ""enum""", es "Odd, schema"."my ""enum"""[], d deep, ds deep[], m many, ms many[], f flag,
  doc document, docs document[], p pair, ps pair[], n nest, ns nest[], pl plain, z nothing, tr text_range, trs text_range[],
  tm texts, fr float_range, fm float_multirange, h hstore, hs hstore[], c citext, cs citext[], l ltree, q lquery, t ltxtquery, i isbn,
  v vector[], w of_row, ws of_row[]
);
INSERT INTO of_all
SELECT 'd"e', ARRAY['a', 'b c', 'd"e', '', 'NULL', NULL]::"Odd, schema"."my ""enum"""[], 3, '{1,2,NULL}', '{1,2}',
  '{"{1,2}","[0:0]={5}"}', true, '{"a": [1.10, "x"]}', ARRAY['{"a": 1}'::document, 'null', NULL], x.p,
  ARRAY[x.p, NULL, x.p], x.n, ARRAY[x.n, NULL], ROW(1, 'a "q", \b (c) ', '{1e20,NaN}', '{(1,1),(0,0);(2,2),(1,1)}')::plain,
  ROW()::nothing, '["a, b","c""\\")', ARRAY['[a,b]'::text_range, 'empty'], '{[a,b],["c d",e]}', '[1e-7,1e20)', '{[1,2),(3,)}',
  'a=>1, "b \"q\" \\"=>NULL, ""=>""', ARRAY['a=>1, "b \"q\" \\"=>NULL, ""=>""'::hstore, '', NULL], 'Ünï "x"', '{a,"b c"}', 'Top.Science', 'Top.*{1,2}', 'Europe & !(Russia@)',
  '978-0-393-04002-9', ARRAY['[1,2]'::vector, NULL], ROW(7, 'x y')::of_row, ARRAY[ROW(7, NULL)::of_row]
FROM (SELECT p, ROW(p, ARRAY[p], 'b c', 3, '(1.10,2)', '\x00')::nest AS n
      FROM (SELECT ROW(-1, 'a "q", \b (c) ', '2024-01-01 12:00+00', false, '{"k": "v w"}')::pair AS p) AS y) AS x;
INSERT INTO of_all DEFAULT VALUES;
INSERT INTO of_all (es, p, n, ps, h, tm, ds)
VALUES ('{}', ROW(NULL, '', 'infinity', NULL, NULL), ROW(ROW(NULL, NULL, NULL, NULL, NULL), '{}', NULL, NULL, 'empty', ''),
        '[3:3]={"(1,NULL,,t,)"}', '', '{}', '{{1,2},{3,4}}');
