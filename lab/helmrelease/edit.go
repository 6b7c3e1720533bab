package helmrelease

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"helm.sh/helm/v3/pkg/chart/loader"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// wrap makes a chart of the manifests in a folder. Nothing in them is a template.
func wrap(name string, folder fs.FS) ([]*loader.BufferedFile, error) {
	files := []*loader.BufferedFile{{Name: "Chart.yaml", Data: fmt.Appendf(nil, "apiVersion: v2\nname: %s\nversion: 0.0.0\n", name)}}
	entries, err := fs.ReadDir(folder, ".")
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(entry.Name())) {
			continue
		}
		text, err := fs.ReadFile(folder, entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		files = append(files,
			&loader.BufferedFile{Name: "files/" + entry.Name(), Data: text},
			&loader.BufferedFile{Name: "templates/" + entry.Name() + ".yaml", Data: fmt.Appendf(nil, "{{ .Files.Get %q }}\n", "files/"+entry.Name())})
	}
	if len(files) == 1 {
		return nil, errors.New("read manifests: the folder has no file that ends in .yaml, .yml or .json")
	}
	return files, nil
}

// decode returns the objects of a text with any number of documents.
func decode(text []byte) ([]map[string]any, error) {
	var all []map[string]any
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var text json.RawMessage
		err := decoder.Decode(&text)
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case len(text) == 0 || string(text) == "null":
			continue
		}
		object, err := plain(text)
		if err != nil {
			return nil, err
		}
		all = append(all, object)
	}
}

// editor is Helm's word for somebody who changes what was rendered.
type editor struct{ *access.Edit }

func (e editor) Run(rendered *bytes.Buffer) (*bytes.Buffer, error) {
	objects, err := decode(rendered.Bytes())
	if err != nil {
		return nil, fmt.Errorf("read what the chart comes to: %w", err)
	}
	var out bytes.Buffer
	for _, object := range objects {
		e.images(object)
		e.address(object)
		if err := write(&out, object); err != nil {
			return nil, err
		}
	}
	for _, object := range e.More {
		if err := write(&out, object); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

func write(out *bytes.Buffer, object any) error {
	text, err := yaml.Marshal(object)
	if err != nil {
		return fmt.Errorf("write an object of the release: %w", err)
	}
	_, _ = out.WriteString("---\n")
	_, _ = out.Write(text)
	return nil
}

// images gives containers the references of their images. What is in the node is not
// pulled.
func (e editor) images(at any) {
	switch at := at.(type) {
	case []any:
		for _, x := range at {
			e.images(x)
		}
	case map[string]any:
		for _, kind := range []string{"containers", "initContainers"} {
			list, _ := at[kind].([]any)
			for _, x := range list {
				c, _ := x.(map[string]any)
				name, _ := c["image"].(string)
				if reference := e.Images[name]; reference != "" {
					c["image"], c["imagePullPolicy"] = reference, "IfNotPresent"
				}
			}
		}
		for _, x := range at {
			e.images(x)
		}
	}
}

// addressAnnotation is how MetalLB is asked for an address.
const addressAnnotation = "metallb.io/loadBalancerIPs"

func (e editor) address(object map[string]any) {
	spec, _ := object["spec"].(map[string]any)
	metadata, _ := object["metadata"].(map[string]any)
	if e.Address == "" || object["kind"] != "Service" || spec["type"] != "LoadBalancer" || spec["loadBalancerIP"] != nil || metadata == nil {
		return
	}
	annotations, _ := metadata["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		metadata["annotations"] = annotations
	}
	if annotations[addressAnnotation] == nil {
		annotations[addressAnnotation] = e.Address
	}
}
