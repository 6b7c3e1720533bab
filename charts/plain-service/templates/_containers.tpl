{{- define "identity" -}}
- {{ printf "--use-workload-api-addr=unix://%s/spire-agent.sock" .Values.spiffe.socketDir | quote }}
# The agent may start later.
- --use-workload-api-timeout=0s
# The agent replaces its socket when it restarts.
- --disable-landlock
- --shutdown-timeout=5s
{{- end -}}

{{- define "confined" -}}
resources:
  requests: {cpu: 5m, memory: 24Mi}
  limits: {memory: 96Mi}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "socket" -}}
volumeMounts:
  - name: agent-socket
    mountPath: {{ .Values.spiffe.socketDir | quote }}
    readOnly: true
{{- end -}}
