{{/* Labels of an object; the argument is the program it belongs to. */}}
{{- define "spire.labels" -}}
app.kubernetes.io/name: {{ . }}
app.kubernetes.io/part-of: spire
{{- end }}

{{/*
The name of an object of the whole cluster; the arguments are the name without a
class, and the chart's root.
*/}}
{{- define "spire.clusterName" -}}
{{ .name }}{{ with .root.Values.class }}-{{ . }}{{ end }}
{{- end }}

{{/* What no container of this chart needs, it does not get. */}}
{{- define "spire.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
Somebody's text as a string of HCL, which takes "${" for the start of an
interpolation.
*/}}
{{- define "spire.text" -}}
{{ . | quote | replace "$" "\\x24" }}
{{- end }}

{{/*
Probes over HTTP; the arguments are a path and a named port. Asked every second
until the program is up, because bring-up waits for it; seldom afterwards,
because an idle lab should be idle, but not so seldom that kubelet, which puts a
container's first probe off by up to a period while kubelet itself is younger than
that, holds up a bring-up (pkg/kubelet/prober/worker.go). There is no liveness
probe: a program that hangs is what a scenario wants to see, not to have restarted
behind its back.
*/}}
{{- define "spire.probes" -}}
startupProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 1
  failureThreshold: 600
readinessProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 5
  failureThreshold: 2
{{- end }}
