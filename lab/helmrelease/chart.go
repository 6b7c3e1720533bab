package helmrelease

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/ignore"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// Render returns what a chart makes of values, by the path of the template,
// without a cluster: as for a first install into one of the Kubernetes version
// that this Helm was built for. Templates that come out empty are left out.
func Render(r Release) (map[string]string, error) {
	files, err := r.files()
	if err != nil {
		return nil, err
	}
	loaded, err := load(files)
	if err != nil {
		return nil, err
	}
	values, err := plain(r.Values)
	if err != nil {
		return nil, err
	}
	if err := chartutil.ProcessDependenciesWithMerge(loaded, values); err != nil {
		return nil, fmt.Errorf("render chart %s: %w", loaded.Name(), err)
	}
	options := chartutil.ReleaseOptions{Name: r.Name, Namespace: r.Namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(loaded, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, fmt.Errorf("render chart %s: %w", loaded.Name(), err)
	}
	rendered, err := engine.Render(loaded, all)
	if err != nil {
		return nil, fmt.Errorf("render chart %s: %w", loaded.Name(), err)
	}
	for name, text := range rendered {
		if strings.TrimSpace(text) == "" || path.Ext(name) == ".txt" {
			delete(rendered, name)
		}
	}
	return rendered, nil
}

// files returns the files of the chart, or of one that manifests are made into.
func (r Release) files() ([]*loader.BufferedFile, error) {
	if r.Manifests == nil {
		return read(r.Chart)
	}
	return wrap(r.Name, r.Manifests)
}

// read returns a chart's files in the order of their paths.
func read(folder fs.FS) ([]*loader.BufferedFile, error) {
	if folder == nil {
		return nil, errors.New("read chart: none is given")
	}
	rules, err := ignored(folder)
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	var files []*loader.BufferedFile
	err = fs.WalkDir(folder, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := entry.Info()
		switch {
		case err != nil:
			return err
		case rules.Ignore(name, info) && entry.IsDir():
			return fs.SkipDir
		case rules.Ignore(name, info) || entry.IsDir():
			return nil
		}
		content, err := fs.ReadFile(folder, name)
		files = append(files, &loader.BufferedFile{Name: name, Data: content})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	return files, nil
}

func ignored(folder fs.FS) (*ignore.Rules, error) {
	rules := ignore.Empty()
	text, err := fs.ReadFile(folder, ignore.HelmIgnore)
	if err == nil {
		rules, err = ignore.Parse(bytes.NewReader(text))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	rules.AddDefaults()
	return rules, nil
}

func load(files []*loader.BufferedFile) (*chart.Chart, error) {
	loaded, err := loader.LoadFiles(files)
	if err != nil {
		return nil, fmt.Errorf("load chart: %w", err)
	}
	return loaded, nil
}

// digest is the same for the same chart, values and edit, and fits into a label.
func digest(files []*loader.BufferedFile, values map[string]any, edit *access.Edit) (string, error) {
	sum := sha256.New()
	for _, f := range files {
		_, _ = fmt.Fprintf(sum, "%q %d\n%s\n", f.Name, len(f.Data), f.Data)
	}
	if err := json.NewEncoder(sum).Encode(values); err != nil {
		return "", fmt.Errorf("encode values: %w", err)
	}
	if edit != nil {
		if err := json.NewEncoder(sum).Encode(edit); err != nil {
			return "", fmt.Errorf("encode edit: %w", err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

// plain turns values into what Helm takes: maps, slices, strings, booleans and
// numbers, whole ones as integers. As a float, ten billion would come out of a
// template as 1e+10.
func plain(values any) (map[string]any, error) {
	if values == nil {
		return map[string]any{}, nil
	}
	encoded, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("encode values: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.UseNumber()
	decoded := map[string]any{}
	if err := decoder.Decode(&decoded); err != nil {
		return nil, fmt.Errorf("values are not a JSON object: %w", err)
	}
	for k, v := range decoded {
		decoded[k] = numbers(v)
	}
	return decoded, nil
}

func numbers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case json.Number:
		if whole, err := v.Int64(); err == nil {
			return whole
		}
		if float, err := v.Float64(); err == nil {
			return float
		}
	}
	return value
}
