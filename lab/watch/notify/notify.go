// Package notify tells others what a watch has found: a program of the person's own, and an
// Alertmanager by its API (version 2, POST /api/v2/alerts).
//
// It refuses to know how something is found, and what it means.
package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/watch"
)

// bound is how long one message may take.
const bound = 10 * time.Second

// Run runs a program for a change, which is on its standard input as JSON, and gives it ten
// seconds. The error has what the program says.
func Run(ctx context.Context, program string, change watch.Change) error {
	text, err := json.Marshal(change)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	command := exec.CommandContext(ctx, program)
	command.Stdin = bytes.NewReader(append(text, '\n'))
	// What the program has started may hold its output open.
	command.WaitDelay = time.Second
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w%s", program, err, words(said))
	}
	return nil
}

// Alertmanager is told of all that fires. The zero value with URL and Lab is ready.
type Alertmanager struct {
	// URL is that of the Alertmanager, without the path of the API.
	URL *url.URL
	Lab string

	sent     time.Time
	resolved []watch.Finding
}

// resend is how often what fires is sent again, and valid how long each message counts: as
// with Prometheus (its --rules.alert.resend-delay; cmd/prometheus/main.go, sendAlerts), so that
// the alert ends by itself when nobody watches any more.
const (
	resend = time.Minute
	valid  = 4 * resend
)

// posted is an alert as the API takes it (its api/v2/openapi.yaml, postableAlert).
type posted struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
}

// Tell sends what fires when something has changed, and each minute again. What could not be
// sent is sent with the next call.
func (a *Alertmanager) Tell(ctx context.Context, at time.Time, findings []watch.Finding, changes []watch.Change) error {
	for _, c := range changes {
		if c.Status == watch.Resolved {
			a.resolved = append(a.resolved, c.Finding)
		}
	}
	if len(changes) == 0 && at.Sub(a.sent) < resend {
		return nil
	}
	all := []posted{}
	for _, f := range a.resolved {
		all = append(all, a.alert(f, at))
	}
	for _, f := range findings {
		if f.Firing {
			all = append(all, a.alert(f, at.Add(valid)))
		}
	}
	a.sent = at
	if len(all) == 0 {
		return nil
	}
	if err := a.post(ctx, all); err != nil {
		a.sent = time.Time{}
		return fmt.Errorf("tell the Alertmanager at %s: %w", a.URL.Redacted(), err)
	}
	a.resolved = nil
	return nil
}

func (a *Alertmanager) alert(f watch.Finding, end time.Time) posted {
	labels := map[string]string{"alertname": f.Alert, "severity": f.Severity, "lab": a.Lab}
	for name, value := range map[string]string{"truster": f.Truster, "trusted": f.Trusted, "name": f.Name} {
		if value != "" {
			labels[name] = value
		}
	}
	return posted{Labels: labels, Annotations: map[string]string{"description": f.Text}, StartsAt: f.Since, EndsAt: end}
}

func (a *Alertmanager) post(ctx context.Context, all []posted) (err error) {
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL.JoinPath("api/v2/alerts").String(), bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	said, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	return errors.Join(fmt.Errorf("the answer is %d %s%s", response.StatusCode, http.StatusText(response.StatusCode), words(said)), err)
}

func words(said []byte) string {
	if text := strings.TrimSpace(string(said)); text != "" {
		return ": " + text
	}
	return ""
}
