package config

import (
	"slices"

	"github.com/google/jsonschema-go/jsonschema"
)

// Schema returns the JSON schema of lab files, for editors. It knows each
// field's own form; what fields have to agree on, only Read knows.
func (f *Format) Schema() *jsonschema.Schema {
	s := nested(f.fields()).jsonSchema()
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "fedlab lab file " + APIVersion
	return s
}

func (v value) jsonSchema() *jsonschema.Schema {
	switch {
	case v.object != nil:
		return v.object.jsonSchema()
	case v.item != nil:
		return &jsonschema.Schema{
			Type: "array", Items: v.item.jsonSchema(),
			MinItems: jsonschema.Ptr(v.min), MaxItems: jsonschema.Ptr(v.max),
		}
	default:
		return v.schema.CloneSchemas()
	}
}

func (o *object) jsonSchema() *jsonschema.Schema {
	s := &jsonschema.Schema{
		Type:                 "object",
		Description:          o.says,
		Properties:           map[string]*jsonschema.Schema{},
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
		PropertyOrder:        o.names(),
	}
	for _, f := range o.fields {
		p := f.value.jsonSchema()
		p.Description, p.Default = f.says, f.fallbackJSON()
		s.Properties[f.name] = p
		if f.required {
			s.Required = append(s.Required, f.name)
		}
	}
	for _, c := range o.choices {
		s.AllOf = append(s.AllOf, &jsonschema.Schema{OneOf: c.jsonSchemas()})
	}
	if len(s.AllOf) == 1 {
		s.OneOf, s.AllOf = s.AllOf[0].OneOf, nil
	}
	return s
}

// jsonSchemas returns one for each set.
func (c choice) jsonSchemas() (sets []*jsonschema.Schema) {
	for i, set := range c {
		var others []*jsonschema.Schema
		for _, name := range slices.Concat(slices.Delete(slices.Clone(c), i, i+1)...) {
			others = append(others, &jsonschema.Schema{Required: []string{name}})
		}
		sets = append(sets, &jsonschema.Schema{Required: set, Not: &jsonschema.Schema{AnyOf: others}})
	}
	return sets
}
