package helmrelease

import (
	"reflect"
	"testing"
	"testing/fstest"
)

func TestReadHonoursHelmIgnore(t *testing.T) {
	chart := demo()
	chart[".helmignore"] = &fstest.MapFile{Data: []byte("*.md\ntestdata/\n")}
	chart["README.md"] = &fstest.MapFile{Data: []byte("read me")}
	chart["testdata/golden.yaml"] = &fstest.MapFile{Data: []byte("golden")}
	files, err := read(chart)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if want := []string{".helmignore", "Chart.yaml", "templates/maps.yaml", "values.yaml"}; !reflect.DeepEqual(names, want) {
		t.Errorf("read %v, want %v", names, want)
	}
}

func TestDigest(t *testing.T) {
	sum := func(chart fstest.MapFS, values any) string {
		t.Helper()
		files, err := read(chart)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := plain(values)
		if err != nil {
			t.Fatal(err)
		}
		d, err := digest(files, decoded, nil)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	base := sum(demo(), map[string]any{"a": 1, "b": 2})
	if again := sum(demo(), struct{ B, A int }{2, 1}); len(base) > 63 || again == base {
		t.Errorf("digest %q, of other keys %q", base, again)
	}
	if again := sum(demo(), map[string]any{"b": 2, "a": 1}); again != base {
		t.Errorf("the order of keys counts: %q and %q", base, again)
	}
	moved := demo()
	moved["templates/other.yaml"] = moved["templates/maps.yaml"]
	delete(moved, "templates/maps.yaml")
	if sum(moved, map[string]any{"a": 1, "b": 2}) == base {
		t.Error("the names of files do not count")
	}
}

func TestPlain(t *testing.T) {
	got, err := plain(map[string]any{"whole": 10_000_000_000, "part": 0.5, "list": []any{1, map[string]int{"x": 2}}, "text": "1"})
	want := map[string]any{"whole": int64(10_000_000_000), "part": 0.5, "list": []any{int64(1), map[string]any{"x": int64(2)}}, "text": "1"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, error %v, want %#v", got, err, want)
	}
}
