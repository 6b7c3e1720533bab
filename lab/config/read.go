package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reader walks the nodes of a file along the table of fields.
type reader struct {
	nodes    map[string]*yaml.Node
	bad      map[string]bool
	problems Problems
}

func newReader() *reader {
	return &reader{nodes: map[string]*yaml.Node{}, bad: map[string]bool{}}
}

func (r *reader) problem(at *yaml.Node, path, cause, want string) {
	r.bad[path] = true
	r.problems = append(r.problems, Problem{Line: at.Line, Column: at.Column, Path: path, Cause: cause, Want: want})
}

// walk reports what is wrong below n and takes it out of the tree, so that the
// rest decodes.
func (r *reader) walk(n *yaml.Node, v value, path string) {
	r.nodes[path] = n
	switch {
	case v.object != nil:
		r.mapping(n, v, path)
	case v.item != nil:
		r.sequence(n, v, path)
	case v.free:
		r.freely(n, v, path)
	default:
		r.scalar(n, v, path)
	}
}

// freely takes an object with any fields, as long as they have names.
func (r *reader) freely(n *yaml.Node, v value, path string) {
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		r.mistyped(n, v, path)
		return
	}
	before := len(r.problems)
	r.named(n, path)
	if len(r.problems) > before {
		clearNode(n)
		return
	}
	for i := 0; v.values != nil && i < len(n.Content); i += 2 {
		key, at := n.Content[i], join(path, n.Content[i].Value)
		if cause, want := v.keys.refuse(key.Value); cause != "" {
			r.problem(key, at, cause, cmp.Or(want, v.keys.want))
		}
		r.walk(n.Content[i+1], *v.values, at)
	}
}

// named reports keys below n that JSON does not have.
func (r *reader) named(n *yaml.Node, path string) {
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i++ {
		if child := n.Content[i]; n.Kind != yaml.MappingNode {
			r.named(child, fmt.Sprintf("%s[%d]", path, i))
			continue
		} else if at := join(path, child.Value); child.ShortTag() != "!!str" {
			r.problem(child, at, describe(child)+" is no name of a field", "put it in quotes")
		} else if seen[child.Value] {
			r.problem(child, at, "the field is there twice", "keep one of them")
		} else {
			seen[child.Value] = true
			r.named(n.Content[i+1], at)
		}
		i++
	}
}

func (r *reader) mapping(n *yaml.Node, v value, path string) {
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		r.mistyped(n, v, path)
		return
	}
	o, absent := v.object, absent(n, v.object)
	seen := map[string]bool{}
	var kept []*yaml.Node
	for i := 0; i < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		f, known := o.field(key.Value)
		instead, other := o.unsupported[key.Value]
		place, misplaced := o.elsewhere[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			r.problem(key, path, describe(key)+" is no name of a field", o.list())
		case other:
			r.problem(key, at, "field "+quote(key.Value)+notSupported, instead)
		case misplaced:
			r.problem(key, at, "field "+quote(key.Value)+" does not belong here", place)
		case !known || key.ShortTag() != "!!str":
			want, near := o.list(), Nearest(key.Value, absent)
			if near != "" {
				want = fmt.Sprintf("write %q", near)
				absent = slices.DeleteFunc(absent, func(name string) bool { return name == near })
			}
			r.problem(key, at, "unknown field "+quote(key.Value), want)
		case seen[key.Value]:
			r.problem(key, at, "the field is there twice", "keep one of them")
		case val.Kind == yaml.SequenceNode && f.value.item == nil && o.hasList(key.Value+"s"):
			r.problem(val, at, "a list is no "+f.value.kind, fmt.Sprintf("write %q for a list", key.Value+"s"))
		default:
			seen[key.Value] = true
			kept = append(kept, key, val)
			r.walk(val, f.value, at)
		}
	}
	n.Content = kept
	for _, f := range o.fields {
		if f.required && slices.Contains(absent, f.name) {
			r.missing(n, f, path)
		}
	}
	for _, c := range o.choices {
		r.choice(n, o, c, path, absent)
	}
}

// absent returns the fields of o that nobody has tried to write in n.
func absent(n *yaml.Node, o *object) []string {
	return slices.DeleteFunc(o.names(), func(name string) bool {
		for i := 0; i < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return true
			}
		}
		return false
	})
}

// choice reports when not exactly one of the choice's sets of fields is there.
func (r *reader) choice(n *yaml.Node, o *object, of choice, path string, absent []string) {
	present := func(name string) bool { return !slices.Contains(absent, name) }
	var sets, there []string
	var begun [][]string
	for _, set := range of {
		words := strings.Join(set, " and ")
		sets = append(sets, words)
		if slices.ContainsFunc(set, present) {
			begun, there = append(begun, set), append(there, words)
		}
	}
	want := "write either " + strings.Join(sets, ", or ")
	switch len(begun) {
	case 0:
		r.problem(n, path, "neither "+strings.Join(sets, " nor "), want)
	case 1:
		for _, name := range begun[0] {
			if f, _ := o.field(name); !present(name) {
				r.missing(n, f, path)
			}
		}
	default:
		r.problem(n, path, strings.Join(there, " together with "), want)
	}
}

func (r *reader) missing(n *yaml.Node, f field, path string) {
	r.problem(n, join(path, f.name), "missing", fmt.Sprintf("add %q: %s", f.name, f.value.want))
}

func (r *reader) sequence(n *yaml.Node, v value, path string) {
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		r.mistyped(n, v, path)
		return
	}
	if count := len(n.Content); count < v.min || count > v.max {
		r.problem(n, path, fmt.Sprintf("a list of %d", count), v.limits+" entries")
		n.Content = n.Content[:min(count, v.max)] // or a long list would make a longer answer
	}
	for i, item := range n.Content {
		r.walk(item, *v.item, fmt.Sprintf("%s[%d]", path, i))
	}
}

func (r *reader) scalar(n *yaml.Node, v value, path string) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != v.tag {
		r.mistyped(n, v, path)
		return
	}
	cause, want := v.refuse(n.Value)
	if cause == "" {
		return
	}
	r.problem(n, path, cause, cmp.Or(want, v.want))
	if !v.name {
		clearNode(n)
	}
}

// mistyped reports a value of another YAML type. What the author of a scalar
// meant is often plain: 60 for a duration, "8443" for a port, 2026 for a name.
func (r *reader) mistyped(n *yaml.Node, v value, path string) {
	cause, want := describe(n)+" is no "+v.kind, v.want
	switch null := n.ShortTag() == "!!null"; {
	case null:
		cause = "no value"
	case n.Kind == yaml.ScalarNode && v.item != nil && v.item.refuse != nil && v.min <= 1:
		if refused, _ := v.item.refuse(n.Value); refused == "" && n.ShortTag() == v.item.tag {
			want = fmt.Sprintf("write it as a list: [%s]", n.Value)
		}
	case n.Kind == yaml.ScalarNode && v.refuse != nil:
		refused, better := v.refuse(n.Value)
		switch {
		case better != "":
			want = better
		case refused == "" && v.tag != "!!str":
			want = "write " + n.Value + " without quotes"
		case refused == "":
			want = fmt.Sprintf("put it in quotes: %q", n.Value)
		}
	}
	r.problem(n, path, cause, want)
	clearNode(n)
}

// clearNode makes a node that decodes to the zero value of any type, and leaves
// it its position.
func clearNode(n *yaml.Node) {
	*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null", Line: n.Line, Column: n.Column}
}

// describe says what a node is where something else belongs.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "an object"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!str":
		return "the text " + quote(n.Value)
	case n.ShortTag() == "!!int" || n.ShortTag() == "!!float":
		return "the number " + quote(n.Value)
	default:
		return fmt.Sprintf("%s (YAML type %s)", quote(n.Value), strings.TrimLeft(n.ShortTag(), "!"))
	}
}

// join appends a field to a path, in quotes if it does not read as a field.
func join(path, name string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		name = quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}
